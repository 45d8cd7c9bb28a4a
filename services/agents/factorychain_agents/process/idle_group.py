"""Processes that together get only what nobody else wants: a control group with `cpu.idle` (Linux 5.15).

SCHED_IDLE says so of single threads, but the kernel owes each of them its share, however small: beside sixty
that spin whoever wakes up waits for one of them now and then. A group is owed one share for all that is
in it.

Invariants: a process is taken from the service's own group and brought back there, nowhere else; a group
without processes is removed, that of a service which was killed by the next one that starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

from factorychain._core.logging import get_logger

_NAME: Final = "factorychain-busy-"
_MEMBERS: Final = "cgroup.procs"
_TRIES: Final = 40
_BETWEEN_S: Final = 0.05
_numbers = itertools.count(1)

log = get_logger(__name__)


class IdleGroup:
    """One such group, of this service."""

    def __init__(self, own: Path, folder: Path) -> None:
        """Make it.

        Args:
            own: the folder of the group that this process is in (cgroups(7)).
            folder: in which the new group is made.

        Raises:
            OSError: this process may not, or this kernel has no such groups.
        """
        for stale in folder.glob(f"{_NAME}*"):
            pid, _, _ = stale.name.removeprefix(_NAME).partition("-")
            if not Path("/proc", pid).exists():
                _ = _remove(stale)
        self._own = own
        self.path = folder / f"{_NAME}{os.getpid()}-{next(_numbers)}"
        self.path.mkdir()
        try:
            _write(self.path / "cpu.idle", "1")
        except OSError:
            _ = _remove(self.path)
            raise

    @classmethod
    def made(cls) -> Self | None:
        """None where it cannot be made: without privilege, and in most containers."""
        groups, mounts = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")
        with contextlib.suppress(OSError):
            for own, folder in places(groups.read_text(), mounts.read_text()):
                with contextlib.suppress(OSError):
                    return cls(own, folder)
        return None

    def add(self, processes: Iterable[int]) -> None:
        """They get what nobody else wants from now on, with all their threads and what they start.

        Raises:
            OSError: one may not be moved.
        """
        _move(processes, self.path)

    def bring_back(self, processes: Iterable[int]) -> None:
        """They are as before.

        Raises:
            OSError: one may not be moved.
        """
        _move(processes, self._own)

    async def close(self) -> None:
        """The group is no more, unless a process stays in it: those that were killed are given a moment."""
        for _ in range(_TRIES):
            if _remove(self.path):
                return
            await asyncio.sleep(_BETWEEN_S)
        log.warning("a control group stays, since there are processes in it", group=str(self.path))


def places(groups: str, mounts: str) -> Iterator[tuple[Path, Path]]:
    """This process's groups for processors, and where each may have one beside it.

    In version 1 of control groups inside of it. In version 2, where a group with processes has none inside
    that divide processors, beside it; the root is exempt.

    Args:
        groups: what /proc/self/cgroup says.
        mounts: what /proc/self/mountinfo says.
    """
    paths = {}
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        root, mounted = fields.split()[3:5]
        kind, _, options = rest.split()[:3]
        if kind == "cgroup" and "cpu" in options.split(",") and "cpu" in paths:
            own = _below(mounted, root, paths["cpu"])
            yield own, own
        elif kind == "cgroup2" and "" in paths:
            own = _below(mounted, root, paths[""])
            yield own, own if paths[""] == "/" else own.parent


def _below(mounted: str, root: str, path: str) -> Path:
    """The folder of a group; `root` is what of the hierarchy is mounted."""
    within = path.removeprefix(root.rstrip("/"))
    return Path(mounted) / within.lstrip("/")


def _move(processes: Iterable[int], to: Path) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            _write(to / _MEMBERS, str(process))


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _remove(group: Path) -> bool:
    """Whether it is gone: one that has processes stays."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
