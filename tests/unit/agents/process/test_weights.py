"""Runs that keep a processor busy give way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain_agents.process.priority import IDLE, Priorities, least_that_can_be_taken_back
from factorychain_agents.process.weights import Usage, Weights, cpu_seconds

CALM, BUSY = 6, 13


class Clock:
    """A run that uses so much of a processor for so long, looked at ten times a second."""

    def __init__(self) -> None:
        self._now_s = self._cpu_s = 0.0
        self._usage = Usage(0.0, 0.0)

    def busy_after(self, seconds: float, share: float) -> bool:
        for _ in range(round(seconds * 10)):
            self._now_s += 0.1
            self._cpu_s += 0.1 * share
            busy = self._usage.used(self._cpu_s, self._now_s)
        return busy


@pytest.mark.parametrize(("share", "busy"), [(1.0, True), (0.2, True), (0.08, False), (0.0, False)])
def test_busy_is_who_uses_much_of_a_processor(share: float, busy: bool) -> None:
    assert Clock().busy_after(5.0, share) is busy


def test_what_a_process_used_before_its_run_does_not_count() -> None:
    assert not Usage(1000.0, 50.0).used(1000.0, 50.2)


def test_a_moments_work_does_not_make_a_run_busy_and_a_second_of_it_does() -> None:
    assert not Usage(0.0, 0.0).used(0.05, 0.2)
    assert Usage(0.0, 0.0).used(1.0, 1.0)


def test_a_busy_run_is_calm_again_only_when_it_uses_next_to_nothing() -> None:
    run = Clock()
    assert run.busy_after(3.0, 1.0)
    assert run.busy_after(20.0, 0.05), "that is what a busy one gets beside many others"
    assert not run.busy_after(20.0, 0.01)


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 0.09)), min_size=1, max_size=50))
def test_however_often_it_is_looked_at_who_stays_below_the_bound_is_never_busy(
    steps: list[tuple[float, float]],
) -> None:
    usage, now_s, cpu_s = Usage(0.0, 0.0), 0.0, 0.0
    for gone_s, share in steps:
        now_s += gone_s
        cpu_s += gone_s * share
        assert not usage.used(cpu_s, now_s)


@contextlib.contextmanager
def spinning() -> Iterator[subprocess.Popen[bytes]]:
    """A process with two threads that never rests, and has started another one that waits."""
    code = (
        "import subprocess, sys, threading\ndef spin():\n while True: pass\n"
        "subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "threading.Thread(target=spin, daemon=True).start()\nprint(flush=True)\nspin()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def looked_until(weights: Weights, holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until_s
        weights.look(time.monotonic())
        time.sleep(0.02)


def threads(pid: int) -> list[int]:
    """Of the process and of the one that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return [
        int(each.name) for of in (pid, *children) for each in Path(f"/proc/{of}/task").iterdir()
    ]


def nices(pid: int) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, each) for each in threads(pid)}


def policies(pid: int) -> set[int]:
    return {os.sched_getscheduler(each) for each in threads(pid)}


def test_all_threads_of_a_process_that_spins_lose_weight_and_so_does_what_it_has_started() -> None:
    with spinning() as process:
        weights = Weights(lambda: [process.pid], Priorities(CALM, BUSY, None))
        looked_until(weights, lambda: nices(process.pid) == {BUSY})
        assert policies(process.pid) == {os.SCHED_OTHER}
        if os.geteuid() != 0:
            return  # to give weight back takes privilege
        process.send_signal(signal.SIGSTOP)
        looked_until(weights, lambda: nices(process.pid) == {CALM})


def test_who_spins_gets_what_nobody_else_wants_where_that_can_be_undone() -> None:
    with spinning() as process:
        weights = Weights(lambda: [process.pid], Priorities(CALM, IDLE, None))
        looked_until(weights, lambda: nices(process.pid) == {19})
        if least_that_can_be_taken_back() != IDLE:
            assert policies(process.pid) == {os.SCHED_OTHER}
            return
        assert policies(process.pid) == {os.SCHED_IDLE}
        process.send_signal(signal.SIGSTOP)
        looked_until(weights, lambda: nices(process.pid) == {CALM})
        assert policies(process.pid) == {os.SCHED_OTHER}


def test_only_root_may_undo_it() -> None:
    assert (least_that_can_be_taken_back() == IDLE) == (os.geteuid() == 0)


def test_a_busy_niceness_below_the_usual_one_changes_nothing() -> None:
    with spinning() as process:
        weights = Weights(lambda: [process.pid], Priorities(CALM, 0, None))
        looked_until(weights, lambda: nices(process.pid) == {CALM})


def test_processes_that_have_ended_are_forgotten() -> None:
    with spinning() as process:
        there = [process.pid]
        weights = Weights(lambda: there, Priorities(CALM, BUSY, None))
        weights.look(time.monotonic())
        assert cpu_seconds(process.pid) >= 0
    weights.look(time.monotonic())  # it is still said to be there
    with pytest.raises(OSError, match="Invalid"):
        cpu_seconds(process.pid)
    there.clear()
    weights.look(time.monotonic())
