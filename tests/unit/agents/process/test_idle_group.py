"""The group of busy runs, with the kernel's own groups where this machine lets us."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from factorychain_agents.process.idle_group import IdleGroup, places
from factorychain_agents.process.priority import IDLE, Priorities, least_that_can_be_taken_back

V1 = """\
31 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:1 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/cpuset rw,nosuid shared:2 - cgroup cgroup rw,cpuset
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "30 23 0:26 /docker/ab /sys/fs/cgroup ro - cgroup rw rw,cpu\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "expected"),
    [
        ("4:cpu,cpuacct:/\n3:cpuset:/x\n", V1, ("/cpu,cpuacct", "/cpu,cpuacct")),
        ("4:cpu,cpuacct:/a/b\n", V1, ("/cpu,cpuacct/a/b", "/cpu,cpuacct/a/b")),
        ("0::/user.slice/session-1.scope\n", V2, ("/user.slice/session-1.scope", "/user.slice")),
        ("0::/\n", V2, ("", "")),
        ("4:cpu:/docker/ab/c\n", CONTAINER, ("/c", "/c")),
    ],
)
def test_where_it_is_made(groups: str, mounts: str, expected: tuple[str, str]) -> None:
    (found,) = places(groups, mounts)
    assert tuple(map(str, found)) == tuple(f"/sys/fs/cgroup{each}" for each in expected)


def test_a_machine_without_groups_for_processors_has_no_place() -> None:
    assert list(places("3:cpuset:/\n", V1)) == []
    assert list(places("", "")) == []


def test_one_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cpu\.idle"):
        IdleGroup(tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest_asyncio.fixture
async def group() -> AsyncIterator[IdleGroup]:
    made = IdleGroup.made()
    if made is None:
        may = any(
            os.access(folder, os.W_OK) and (folder / "cpu.idle").exists()
            for _, folder in places(
                *(Path(f"/proc/self/{each}").read_text() for each in ("cgroup", "mountinfo"))
            )
        )
        assert not may, "this kernel has them, and we may"
        pytest.skip("no control groups that we may make")
    yield made
    await made.close()
    assert not made.path.exists()


def members(group: IdleGroup) -> set[int]:
    return {int(each) for each in (group.path / "cgroup.procs").read_text().split()}


def test_a_busy_process_is_in_it_with_what_it_has_started_until_it_is_calm(
    group: IdleGroup,
) -> None:
    assert (group.path / "cpu.idle").read_text().strip() == "1"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=sys.stdin)\n"
        "print(child.pid, flush=True)\nchild.wait()"
    )
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        started = int(process.stdout.readline())
        priorities = Priorities(6, IDLE, group)
        priorities.set(process.pid, busy=True)
        assert members(group) == {process.pid, started}
        priorities.set(process.pid, busy=False)
        assert members(group) == set()
        process.stdin.close()
    priorities.set(process.pid, busy=True)  # it has ended
    assert members(group) == set()


async def test_that_of_a_service_which_was_killed_is_removed_by_the_next(group: IdleGroup) -> None:
    gone = subprocess.run(  # noqa: ASYNC221 - it ends at once
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    stale = group.path.with_name(f"factorychain-busy-{int(gone.stdout)}-1")
    stale.mkdir()
    again = IdleGroup.made()
    assert again is not None
    assert group.path.exists()
    assert not stale.exists()
    await again.close()


async def test_a_busy_process_has_the_least_priority_when_somebody_has_removed_the_group(
    group: IdleGroup,
) -> None:
    await group.close()
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: ASYNC220
        priorities = Priorities(6, IDLE, group)
        priorities.set(process.pid, busy=True)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        if least_that_can_be_taken_back() == IDLE:
            priorities.set(process.pid, busy=False)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == 6
            assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
