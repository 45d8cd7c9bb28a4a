"""What a piece of code left behind in this process that a fork of it would not have in working order.

Threads do not exist in a fork; sockets and files are closed there, or would be shared with every other
run; what is bound to an event loop waits for one that never runs again. Native threads count, which
`threading` does not see.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import types
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc/self")
# A large index has millions of objects; clients and pools are found near the surface.
_LOOKED_AT_MOST: Final = 20_000
# What leads away from a value into everything there is.
_NOT_ITS_OWN: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.FrameType,
    types.CodeType,
    contextvars.Context,
    contextvars.ContextVar,
)
# Of `asyncio.to_thread`; who forks ends them when everything is made.
_OF_THE_LOOP: Final = "asyncio_"
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque)


@dataclass(frozen=True, slots=True)
class Left:
    """What is there after something that was not there before it."""

    threads: tuple[str, ...] = ()
    """Names, of native threads too."""
    descriptors: tuple[str, ...] = ()
    """Sockets, pipes and files that are open, in words."""
    loop_bound: tuple[str, ...] = ()
    """Types and tasks that belong to the event loop."""

    def __bool__(self) -> bool:
        return bool(self.threads or self.descriptors or self.loop_bound)

    def __str__(self) -> str:
        parts = []
        if self.threads:
            parts.append(f"it started {_counted(self.threads, 'thread')}")
        if self.descriptors:
            parts.append(f"it keeps open: {_listed(self.descriptors)}")
        if self.loop_bound:
            parts.append(f"it is bound to an event loop: {_listed(self.loop_bound)}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Footprint:
    """The threads, descriptors and tasks of this process at one moment."""

    threads: Mapping[int, str]
    descriptors: Mapping[int, str]
    tasks: frozenset[asyncio.Task[object]]

    @classmethod
    def now(cls) -> Footprint:
        """To be taken in a running event loop."""
        return cls(_threads(), _descriptors(), frozenset(asyncio.all_tasks()))

    def left_by(self, value: object) -> Left:
        """What has come since, and what of the value is bound to the loop."""
        now = Footprint.now()
        threads = [
            name
            for each, name in now.threads.items()
            if each not in self.threads and not name.startswith(_OF_THE_LOOP)
        ]
        opened = now.descriptors.items() - self.descriptors.items()
        mapped = _mapped() if opened else frozenset()
        descriptors = {_kind(target) for _, target in opened if target not in mapped}
        tasks = {f"task {each.get_name()}" for each in now.tasks - self.tasks}
        bound = tasks | _holders(value, asyncio.get_running_loop())
        return Left(tuple(sorted(threads)), tuple(sorted(descriptors)), tuple(sorted(bound)))


def _threads() -> dict[int, str]:
    names = {each.native_id or 0: each.name for each in threading.enumerate()}
    with suppress(OSError):
        for each in (_PROC / "task").iterdir():
            with suppress(OSError):  # it has ended meanwhile
                names.setdefault(int(each.name), (each / "comm").read_text().strip())
    return names


def _descriptors() -> dict[int, str]:
    found = {}
    with suppress(OSError):
        for each in (_PROC / "fd").iterdir():
            with suppress(OSError):  # the one that lists them
                found[int(each.name)] = str(each.readlink())
    return {number: target for number, target in found.items() if not target.startswith("/proc/")}


def _mapped() -> frozenset[str]:
    """Files in memory: those stay readable whatever happens to the descriptor."""
    with suppress(OSError):
        lines = (_PROC / "maps").read_text().splitlines()
        return frozenset(line.split(maxsplit=5)[5] for line in lines if line.count("/"))
    return frozenset()


def _kind(target: str) -> str:
    for start, kind in (("socket:", "a socket"), ("pipe:", "a pipe"), ("anon_inode:", "")):
        if target.startswith(start):
            return kind or f"an {target.removeprefix(start).strip('[]')}"
    return target


def _holders(value: object, loop: asyncio.AbstractEventLoop) -> set[str]:
    """Types of what can be reached from the value and refers to the loop."""
    found: set[str] = set()
    seen = {id(value), id(loop)}
    wanted = deque([(value, type(value))])
    while wanted and len(seen) < _LOOKED_AT_MOST:
        each, owner = wanted.popleft()
        for inner in gc.get_referents(each):
            if inner is loop:
                found.add(f"{owner.__module__}.{owner.__qualname__}")
            elif id(inner) not in seen and not isinstance(inner, _NOT_ITS_OWN):
                seen.add(id(inner))
                # Containers say nothing: what is in one belongs to who has it.
                wanted.append((inner, owner if isinstance(inner, _CONTAINERS) else type(inner)))
    return found


def _counted(names: tuple[str, ...], what: str) -> str:
    several = "s" if len(names) > 1 else ""
    return f"{len(names)} {what}{several} ({_listed(tuple(dict.fromkeys(names)))})"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, …" if len(names) > 5 else shown
