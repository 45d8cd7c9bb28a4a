"""What a process holds right now, written to its log when it gets SIGUSR1.

For an operator without a metrics store, and for the tests that look for what a run left behind: tasks,
descriptors, memory, living objects of this code by class, and the values of every instrument.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections import Counter as Tally
from pathlib import Path

from factorychain._core import metrics
from factorychain._core.logging import get_logger
from factorychain._core.token_cache import remembered

log = get_logger(__name__)

_OWN = "factorychain"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class StatisticsOnSignal:
    """Answers SIGUSR1 with one log line, `statistics`."""

    name = "statistics"
    healthy = True

    async def start(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._tell)

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    def _tell(self) -> None:
        # Collecting first holds the loop up for some milliseconds; otherwise cycles count as held.
        gc.collect()
        log.info(
            "statistics",
            tasks=len(asyncio.all_tasks()),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            rss_bytes=rss_bytes(),
            tokens_remembered=remembered(),
            objects=living_objects(),
            instruments=instruments(),
        )


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def living_objects() -> dict[str, int]:
    """How many objects of each of this code's classes are alive, frozen ones aside."""
    tally = Tally(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in map(type, gc.get_objects())
        if kind.__module__.startswith(_OWN)
    )
    return dict(sorted(tally.items()))


def instruments() -> dict[str, float | dict[str, float]]:
    """The value of every counter; count, mean, p50 and p99 of every histogram; by name and labels."""
    found: dict[str, float | dict[str, float]] = {}
    for each in metrics.REGISTRY:
        for series, values in each.series():
            labels = ",".join(f"{key}={value}" for key, value in series)
            name = f"{each.described.name}{{{labels}}}" if labels else each.described.name
            found[name] = values.value if isinstance(values, metrics.Total) else _summary(values)
    return found


def _summary(values: metrics.Distribution) -> dict[str, float]:
    return {
        "count": values.count,
        "mean": values.total / values.count if values.count else 0.0,
        "p50": values.quantile(0.5),
        "p99": values.quantile(0.99),
        "max": values.maximum,
    }
