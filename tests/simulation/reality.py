"""Takes the real world away from this Python process: time, chance, threads and sockets.

Invariant: after `take_over` whatever asks for the time gets the simulation's, whatever asks for
chance gets the seed's, and whatever would leave the process raises. To be called before anything of
the services is imported, since defaults such as `clock=time.time` are bound then.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol

EPOCH_S = 1_800_000_000.0
"""The Unix time at which every simulation begins."""


class Clock(Protocol):
    """Whose time counts: read where it stands, since everybody asks for it, and often."""

    now_s: float


_clock: Clock = SimpleNamespace(now_s=0.0)
"""Replaced by `follow`."""
_chance = random.Random(0)


class Real(RuntimeError):
    """Something reached for what a simulation does not have."""


def take_over() -> None:
    """Replaces time, chance, threads and sockets for good: only in a process of its own."""
    if "factorychain._core" in sys.modules:
        raise RuntimeError(
            "the services are imported already, with the real clock in their defaults"
        )
    # Coroutines of a world that is over complain when they are thrown away in mid-await.
    sys.unraisablehook = lambda _: None
    time.time = lambda: EPOCH_S + _clock.now_s
    time.monotonic = time.perf_counter = lambda: 1000.0 + _clock.now_s
    time.time_ns = lambda: int((EPOCH_S + _clock.now_s) * 1e9)
    time.sleep = _barred("time.sleep")
    secrets.token_hex = _token_hex
    asyncio.to_thread = _inline
    socket.socket.connect = _barred("socket.connect")  # type: ignore[method-assign]
    socket.socket.bind = _barred("socket.bind")  # type: ignore[method-assign]
    threading.Thread.start = _barred("Thread.start")  # type: ignore[method-assign]


def follow(clock: Clock, seed: int) -> None:
    """From now on time is the clock's, and chance follows from the seed."""
    global _clock
    _clock = clock
    _chance.seed(seed)
    random.seed(seed)


def _token_hex(nbytes: int | None = None) -> str:
    number = nbytes or 16
    return f"{_chance.getrandbits(8 * number):0{2 * number}x}"


def _barred(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise Real(f"{what} in a simulation")

    return refuse


async def _inline(work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return work(*args, **kwargs)
