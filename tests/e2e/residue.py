"""An agent that leaves its user's canary wherever a process can keep something, and looks there first."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import functools
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

from factorychain import Agent, RunContext, ToolError, shared, tool

CANARY = re.compile(r"canary-[0-9a-f]{16}")

kept: list[str] = []
current: ContextVar[str] = ContextVar("current", default="")
of_thread = threading.local()


class Shared:
    """Made once, for all runs of all users; nothing of a run belongs in it."""

    def __init__(self) -> None:
        self.seen: list[str] = []


class Own:
    """Made for each run."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.canary = ""


@shared
def make_shared() -> Shared:
    return Shared()


async def make_own(shared: Shared) -> AsyncIterator[Own]:
    own = Own(shared)
    try:
        yield own
    finally:
        print(f"closed what {own.canary} used")


providers = [make_shared, make_own]


@functools.cache
def cached() -> list[str]:
    """One list for as long as the process lives."""
    return []


def residue(own: Own) -> list[str]:
    """What is here of canaries, by place; nothing in a process that nobody has used."""
    places = {
        "module": kept,
        "environment": list(os.environ.values()),
        "context": [current.get()],
        "thread": [getattr(of_thread, "canary", "")],
        "builtins": [getattr(builtins, "canary", "")],
        "cache": cached(),
        "class": [getattr(Leaves, "last", "")],
        "shared": own.shared.seen,
        "own": [own.canary],
        "files": [path.read_text() for path in _files()],
        "descriptors": [_content(each) for each in Path("/proc/self/fd").iterdir()],
    }
    return [place for place, texts in places.items() if CANARY.search(" ".join(texts))]


def _files() -> list[Path]:
    folders = {Path.cwd(), Path(tempfile.gettempdir()), Path.home()}
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def _content(descriptor: Path) -> str:
    """What an open file holds, also one that has no name any more."""
    with contextlib.suppress(OSError, ValueError):
        if "(deleted)" in str(descriptor.readlink()):
            return os.pread(int(descriptor.name), 4096, 0).decode("utf-8", "replace")
    return ""


def leave(own: Own, canary: str) -> None:
    """Leave it everywhere."""
    kept.append(canary)
    os.environ["CANARY"] = canary
    current.set(canary)
    of_thread.canary = canary
    setattr(builtins, "canary", canary)  # noqa: B010 - a name that no type knows
    cached().append(canary)
    Leaves.last = canary
    own.shared.seen.append(canary)
    own.canary = canary
    Path("left").write_text(canary)
    (Path(tempfile.gettempdir()) / "left-there").write_text(canary)
    nameless = tempfile.TemporaryFile()  # noqa: SIM115 - left open on purpose
    nameless.write(canary.encode())
    nameless.flush()
    _open.append(nameless)


_open: list[object] = []


class Leaves(Agent):
    """Says its input in every place where an agent can say something, with pauses between."""

    name = "leaves"
    last = ""

    def __init__(self, own: Own) -> None:
        self.own = own

    @tool
    async def carry(self, text: str) -> dict[str, str]:
        """Carries a text from the arguments to the result."""
        await asyncio.sleep(0.005)
        return {"carried": text}

    @tool
    def carry_in_thread(self, text: str) -> str:
        """The same, in a thread."""
        time.sleep(0.005)
        return text

    @tool
    async def drop(self, text: str) -> None:
        """Fails and says why."""
        raise ToolError(f"dropped {text}")

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        found = residue(self.own)
        leave(self.own, text)
        pauses = random.Random(ctx.run_id)
        past = [each.input.text for each in await ctx.history()]
        try:
            for index in range(3):
                await self._say_all(ctx, f"{text} {index}")
                await asyncio.sleep(pauses.uniform(0, 0.06))
        except asyncio.CancelledError:
            print(f"cancelled {text}")
            raise
        return {"canary": text, "found": found, "past": past}

    async def _say_all(self, ctx: RunContext, text: str) -> None:
        await ctx.think(text)
        print(f"printed {text}")
        await asyncio.gather(self.carry(text=text), ctx.call(self.carry_in_thread, text))
        with contextlib.suppress(ToolError):
            await self.drop(text=text)
        async with ctx.message() as message:
            await message.write(text)
        await ctx.emit("seen", {"text": text})
