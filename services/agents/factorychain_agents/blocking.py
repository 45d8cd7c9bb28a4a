"""Which agent holds up the event loop that it shares with all others: of runs that are tasks.

Invariant: while agents' code is on its loop the service counts as degraded from the moment at which the
loop is found to be held up, by whatever it is, until the loop has come to its work in time for a while.
Where no run is a task it was the machine, which has been slow for all: no reason to refuse anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from factorychain._core.metrics import counter, up_down_counter
from factorychain._instance.active import run_of

_blocks = counter(
    "factorychain.agents.loop.blocks",
    "How often the event loop was held up, by the agent that did it; none if it was no agent",
    "{block}",
)
_degraded = up_down_counter(
    "factorychain.agents.degraded", "1 while agents hold up the event loop of this replica"
)


class BlockedLoop:
    """Listens to the watchdog of the loop, in its thread."""

    def __init__(self, is_shared: Callable[[], bool]) -> None:
        """`is_shared`: whether any run is a task now; asked in that thread."""
        self._is_shared = is_shared
        self.degraded = False

    def held_up(self, task: asyncio.Task[object] | None) -> Mapping[str, str]:
        run = run_of(task) if task is not None else None
        _blocks.add(1, {"agent": run.spec.agent} if run is not None else None)
        if not self.degraded and self._is_shared():
            self.degraded = True
            _degraded.add(1)
        if run is None:
            return {}
        return {
            "agent": run.spec.agent,
            "run": run.spec.run,
            "hint": "call blocking code in a synchronous tool, or run the agent with isolation = process",
        }

    def goes_round(self) -> None:
        if self.degraded:
            self.degraded = False
            _degraded.add(-1)
