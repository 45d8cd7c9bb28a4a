"""A user who gives up on runs in every way and at any moment, and keeps all that was ever seen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.e2e.chain import Chain
from tests.e2e.sockets import ENDINGS, Frame, Socket, connected

THREADS = ("t0", "t1")
_AGENT = "leaves"
_EVENTS = 28
"""So many come before the ending."""
_ENDED_WITHIN_S = 120.0


class Impatient:
    """One user, with a canary and a random sequence of their own."""

    def __init__(self, chain: Chain, name: str, seed: int) -> None:
        self.name = name
        self._chain = chain
        self._chance = random.Random(f"{seed} {name}")
        self.canary = f"canary-{self._chance.randbytes(8).hex()}"
        self.texts: list[str] = []
        """Every frame that any socket got."""
        self.runs: dict[str, str] = {}
        """Thread by run."""

    async def live(self, runs: int) -> None:
        """Start so many runs, one after the other, and see the end of each; five go every way."""
        ways = [self._watch, self._cancel, self._cancel, self._cut, self._repeat]
        self._chance.shuffle(ways)
        for number in range(runs):
            way = ways[number % len(ways)]
            await way({"thread": THREADS[number % 2], "request_id": f"q{number}"})

    async def story(self) -> dict[str, list[Frame]]:
        """What the log has of each run, in order."""
        found: dict[str, list[Frame]] = {}
        async with self._socket() as socket:
            for thread in THREADS:
                for each in await _replayed(socket, thread):
                    found.setdefault(each["run"], []).append(each)
        return found

    # --- ways to give up ---

    async def _watch(self, start: dict[str, str]) -> None:
        async with self._socket() as socket:
            await self._ended(socket, await self._started(socket, start))

    async def _cancel(self, start: dict[str, str]) -> None:
        async with self._socket() as socket:
            run = await self._started(socket, start)
            await self._moment(socket, run)
            await self._cancelled(socket, run)

    async def _cut(self, start: dict[str, str]) -> None:
        """Lose the socket, come back and resume, then cancel or not."""
        async with self._socket() as socket:
            run = await self._started(socket, start)
            await self._moment(socket, run)
            _lose(socket)
        async with self._socket() as socket:
            await socket.result("subscribe", thread=start["thread"], after=0)
            await self._leave_or_cancel(socket, run)

    async def _repeat(self, start: dict[str, str]) -> None:
        """Lose the socket while the start is under way, and ask for the same again."""
        for _ in range(self._chance.randint(1, 2)):
            async with self._socket() as socket:
                await socket.send({"op": "start", "id": "1", **self._asked(start)})
                await self._pause()
                _lose(socket)
        async with self._socket() as socket:
            await self._leave_or_cancel(socket, await self._started(socket, start))

    # --- inside ---

    @asynccontextmanager
    async def _socket(self) -> AsyncIterator[Socket]:
        async with connected(self._chain.state.edge, self._chain.token(self.name)) as socket:
            try:
                yield socket
            finally:
                self.texts += socket.texts

    async def _moment(self, socket: Socket, run: str) -> None:
        """At random: so long after the start, or so many events after it."""
        if self._chance.random() < 0.3:
            await self._pause()
            return
        count = self._chance.randint(1, _EVENTS)
        await socket.wait_for(
            lambda _: len(events := socket.run_events(run)) >= count or bool(endings(events)),
            timeout_s=_ENDED_WITHIN_S,
        )
        await self._pause(0.02)

    async def _pause(self, latest_s: float = 0.1) -> None:
        await asyncio.sleep(self._chance.uniform(0, latest_s))

    def _asked(self, start: dict[str, str]) -> dict[str, Any]:
        return {"agent": _AGENT, "input": {"text": self.canary}, **start}

    async def _started(self, socket: Socket, start: dict[str, str]) -> str:
        run = str((await socket.result("start", **self._asked(start)))["run"])
        self.runs[run] = start["thread"]
        return run

    async def _leave_or_cancel(self, socket: Socket, run: str) -> None:
        if self._chance.random() < 0.5:
            await self._moment(socket, run)
            await self._cancelled(socket, run)
        else:
            await self._ended(socket, run)

    async def _cancelled(self, socket: Socket, run: str) -> None:
        await socket.result("cancel", run=run)
        await self._ended(socket, run)

    async def _ended(self, socket: Socket, run: str) -> None:
        await socket.ending(run, _ENDED_WITHIN_S)


def endings(events: list[Frame]) -> list[Frame]:
    """The endings among them."""
    return [each for each in events if each["type"] in ENDINGS]


async def _replayed(socket: Socket, thread: str) -> list[Frame]:
    """Everything of a thread."""
    await socket.result("subscribe", thread=thread, after=0)
    await socket.wait_for(lambda f: f["op"] == "caught_up" and f["thread"] == thread)
    events = socket.events(thread)
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    return events


def _lose(socket: Socket) -> None:
    transport = socket.ws.get_extra_info("transport", None)
    if transport is not None:
        transport.abort()
