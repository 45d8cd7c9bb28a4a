"""A loop that is held up is noticed while it is, with the code that does it."""

from __future__ import annotations

import threading

from structlog.testing import capture_logs

from factorychain._core.watchdog import LoopWatchdog
from tests.waiting import until


def hold_the_loop_up(watchdog: LoopWatchdog, waited: threading.Event) -> None:
    """Blocks, as a synchronous call in a coroutine does, until the watchdog has seen it."""
    for _ in range(500):
        if watchdog.blocked or waited.wait(0.01):
            return


async def test_blocking_work_is_logged_with_its_stack_and_only_once() -> None:
    watchdog = LoopWatchdog(interval_s=0.01, warn_s=0.05)
    with capture_logs() as lines:
        await watchdog.start()
        hold_the_loop_up(watchdog, threading.Event())
        assert watchdog.blocked == 1

        async def beats_again() -> bool:
            return watchdog._beat_s > 0

        await until(beats_again)
        await watchdog.stop()
    (line,) = [each for each in lines if each["event"] == "the event loop is held up"]
    assert "hold_the_loop_up" in line["stack"]
    assert line["late_s"] >= 0.05
