"""An agent whose process comes to every kind of end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import threading
import time
from pathlib import Path

from factorychain import Agent, RunContext

_PIECE_BYTES = 1024 * 1024


class Mortal(Agent):
    """Ends as it is told, holding as much as it can until then."""

    name = "mortal"

    async def run(self, ctx: RunContext, text: str) -> str:
        held = [socket.socketpair() for _ in range(8)]
        _leave_files()
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        await ctx.think(f"with {len(held)} pairs of sockets")
        if text == "exits":
            os._exit(3)
        if text == "crashes":
            ctypes.string_at(0)
        if text == "spins":
            while True:
                pass
        if text == "eats":
            eaten: list[bytearray] = []
            while True:
                eaten.append(bytearray(_PIECE_BYTES))
        if text == "lasts":
            await asyncio.Event().wait()
        if text == "hangs":
            _hold_up()
        if text == "stays":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            await ctx.think("for ever")
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue
        return text


class Lasting(Mortal):
    """Has little time, and takes it all."""

    name = "lasting"
    lifetime_s = 3.0


def _hold_up() -> None:
    """The event loop goes round no more."""
    time.sleep(3600)


def _leave_files() -> None:
    folder = Path("left")
    for index in range(3):
        folder = folder / str(index)
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 1000)
    folder.chmod(0o500)
