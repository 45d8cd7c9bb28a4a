"""Agents that take all that they can get, for as long as they are let."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from typing import NoReturn

from factorychain import Agent, RunContext

_THREADS = 4
_PIECE_BYTES = 4 * 1024 * 1024


class Spin(Agent):
    """Uses every processor, in threads that hold no lock of Python's."""

    name = "bench-spin"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        for _ in range(_THREADS):
            threading.Thread(target=_hash, daemon=True).start()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


def _hash() -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)


class Allocate(Agent):
    """Fills its memory to the limit, lets go, and fills it again."""

    name = "bench-allocate"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        kept: list[bytes] = []
        while True:
            try:
                kept.append(b"x" * _PIECE_BYTES)
            except MemoryError:
                kept.clear()
            await asyncio.sleep(0)


class Flood(Agent):
    """Says something without end: as many characters each time as it is told."""

    name = "bench-flood"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        while True:
            await ctx.think("x" * int(text))


class Fork(Agent):
    """Multiplies: in processes, programs and, where that is denied, in threads that never rest."""

    name = "bench-fork"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        while True:
            with contextlib.suppress(OSError):
                os.fork()
            with contextlib.suppress(OSError):
                os.posix_spawn("/bin/true", ["true"], {})  # noqa: ASYNC221 - harm is meant
            with contextlib.suppress(OSError, RuntimeError, MemoryError):
                threading.Thread(target=_spin, daemon=True).start()
            await asyncio.sleep(0)


def _spin() -> NoReturn:
    while True:
        pass
