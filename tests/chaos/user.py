"""A user who never gives up: starts run after run, answers what is asked, cancels some, loses sockets, reads
old threads again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.answers import Answers
from tests.chaos.client import Client, Frame, Lost
from tests.chaos.journal import Journal

ENDINGS = frozenset({"agent_completed", "agent_failed", "agent_cancelled"})
INTERRUPTING = "interrupting"
_AGAIN_S = 0.3
_LATE_S = 60.0


@dataclass(frozen=True, slots=True)
class Habits:
    """What users do, and how often."""

    steps: int = 10
    pause_ms: int = 300
    runs_per_thread: int = 8
    cancels: float = 0.08
    """Of all runs."""
    agents: Mapping[str, int] = field(
        default_factory=lambda: {"scripted": 8, "asking": 3, "interrupting": 3, "repeating": 3}
    )
    """How often each has its turn."""
    enqueues: float = 0.15
    """How often another run is sent behind one that goes on, in the same thread."""
    rest_s: float = 0.0
    """Between two runs of a conversation, at most."""
    socket_s: tuple[float, float] = (3.0, 20.0)
    """How long a socket is kept."""


class Watcher:
    """Is told of what users see, as it happens."""

    def event(self, event: Frame) -> None:
        """Some user saw this."""

    def started(self, sent_at: float) -> None:
        """A start that was first sent then was accepted now."""


class User:
    """One user with one conversation after the other."""

    def __init__(
        self,
        edges: Sequence[str],
        token: Callable[[str], str],
        name: str,
        folder: Path,
        habits: Habits,
        seed: str,
        watcher: Watcher,
        *,
        lanes: int = 1,
    ) -> None:
        """`lanes`: how many conversations at once."""
        self.name = name
        self.running: dict[str, str] = {}
        """Thread by run, of runs that were admitted and have not ended for this user."""
        self._edges, self._token, self._habits, self._watcher = edges, token(name), habits, watcher
        self._lanes = lanes
        self._chance = random.Random(f"{seed} {name}")
        self._journal = Journal(folder / f"seen-{name}.jsonl")
        self._client = Client(edges, self._token, self._journal, "live", self._chance)
        self._client.on_event(self._saw)
        self._answers = Answers(name, self._client, self._journal, self._chance)
        self._ended: dict[str, asyncio.Event] = {}
        self._pending: dict[str, str] = {}
        """What runs that have ended ask."""
        self._aside: list[asyncio.Task[None]] = []

    @property
    def in_flight(self) -> int:
        """How many of the user's runs are under way."""
        return len(self.running)

    async def live(self, done: asyncio.Event) -> None:
        """Talk until `done` and the last run has ended, and every thread was read again."""
        connection = asyncio.create_task(self._client.connect_for_ever())
        dropping = asyncio.create_task(self._drop_sockets())
        lanes = [asyncio.create_task(self._lane(each, done)) for each in range(self._lanes)]
        try:
            await asyncio.gather(*lanes)
            await asyncio.gather(*self._aside)
        finally:
            tasks = [connection, dropping, *lanes, *self._aside]
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._journal.close()

    async def _lane(self, lane: int, done: asyncio.Event) -> None:
        """One conversation after the other."""
        for number in itertools.count():
            if done.is_set():
                return
            await self._talk(f"{self.name}-{lane}-{number}", done)

    async def _talk(self, thread: str, done: asyncio.Event) -> None:
        """One thread; when it rests, somebody who joins late reads all of it."""
        await self._client.connected()
        await self._client.follow(thread)
        for number in range(self._habits.runs_per_thread):
            if done.is_set():
                break
            await self._one_run(thread, f"{thread}-{number}")
        late = self._read_late(thread, self._client.last(thread))
        self._aside.append(asyncio.create_task(late))
        await self._client.leave(thread)

    async def _one_run(self, thread: str, request: str) -> None:
        agent = self._choose()
        run = await self._start(thread, request, agent)
        if run is None:
            await asyncio.sleep(_AGAIN_S)
            return
        runs = {run: request}
        # What an ended run asks could not be answered while another is in its thread.
        if agent != INTERRUPTING and self._chance.random() < self._habits.enqueues:
            behind = f"{request}-behind"
            waiting = await self._start(thread, behind, self._choose(), on_busy="enqueue")
            runs |= {} if waiting is None else {waiting: behind}
        await asyncio.gather(*(self._follow(each, thread) for each in runs))
        for each, its_request in runs.items():
            question = self._pending.pop(each, None)
            if question is not None:
                await self._go_on(each, question, thread, f"{its_request}-next")
        await asyncio.sleep(self._chance.uniform(0, self._habits.rest_s))

    async def _follow(self, run: str, thread: str) -> None:
        """Until it has ended."""
        ended = self._ended.setdefault(run, asyncio.Event())
        if not ended.is_set():
            self.running[run] = thread
        if self._chance.random() < self._habits.cancels:
            length_s = self._habits.steps * self._habits.pause_ms / 1000
            await self._cancel(run, self._chance.uniform(0, length_s), ended)
        await ended.wait()
        self.running.pop(run, None)

    async def _go_on(self, run: str, question: str, thread: str, request: str) -> None:
        """Answer what an ended run asks, and live through the next."""
        self._journal.note("asked", request=request, thread=thread, agent=INTERRUPTING)
        following = await self._answers.go_on(run, question)
        self._journal.note("admitted", request=request, run=following, thread=thread)
        await self._follow(following, thread)

    def _choose(self) -> str:
        """Which agent has its turn."""
        names, weights = zip(*self._habits.agents.items(), strict=True)
        (agent,) = self._chance.choices(names, weights)
        return str(agent)

    async def _start(
        self, thread: str, request: str, agent: str, on_busy: str = "reject"
    ) -> str | None:
        """The run, or None when it was refused; a start without an answer is repeated as it is."""
        text = f"canary-{self.name}-{request}|{self._habits.steps}|{self._habits.pause_ms}"
        first_at: float | None = None
        while True:
            await self._client.connected()
            self._journal.note("asked", request=request, thread=thread, agent=agent)
            first_at = first_at or time.time()
            try:
                reply = await self._client.call(
                    "start",
                    agent=agent,
                    thread=thread,
                    request_id=request,
                    on_busy=on_busy,
                    input={"text": text},
                )
            except Lost:
                continue
            if "result" in reply:
                run = str(reply["result"]["run"])
                self._journal.note("admitted", request=request, run=run, thread=thread)
                self._watcher.started(first_at)
                return run
            self._journal.note("refused", request=request, thread=thread, error=reply["error"])
            if reply["error"]["reason"] not in ("CHAIN_DEGRADED", "OPERATIONS_LIMIT"):
                return None
            # Nobody may have said no: only the same request again tells whether it was admitted.
            await asyncio.sleep(_AGAIN_S)

    async def _cancel(self, run: str, delay_s: float, ended: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await ended.wait()
        while not ended.is_set():
            await self._client.connected()
            self._journal.note("cancel", run=run)
            with contextlib.suppress(Lost):
                if "result" in await self._client.call("cancel", run=run):
                    return
            await asyncio.sleep(_AGAIN_S)

    def _saw(self, thread: str, event: Frame) -> None:
        self._watcher.event(event)
        run, data = event["run"], event["data"]
        ended = self._ended.setdefault(run, asyncio.Event())
        if event["type"] == "input_requested":
            answering = self._answers.give(run, data["request"], ended)
            self._aside.append(asyncio.create_task(answering))
        if event["type"] in ENDINGS:
            for each in data.get("pending", ()):
                self._pending[run] = each["request"]
            ended.set()

    async def _drop_sockets(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*self._habits.socket_s))
            self._client.drop()

    async def _read_late(self, thread: str, last: int) -> None:
        """Read a thread at rest from its beginning, on another socket, until its end was there."""
        reader = f"late-{thread}"
        client = Client(self._edges, self._token, self._journal, reader, self._chance)
        whole = asyncio.Event()

        def saw(_: str, event: Frame) -> None:
            if event["seq"] >= last:
                whole.set()

        client.on_event(saw)
        connection = asyncio.create_task(client.connect_for_ever())
        try:
            await client.connected()
            await client.follow(thread)
            async with asyncio.timeout(_LATE_S):
                await client.caught_up(thread)
                if last:
                    await whole.wait()
            self._journal.note("caught_up", reader=reader, thread=thread)
        except TimeoutError:
            pass  # what it has not seen, the checker sees
        finally:
            connection.cancel()
            await asyncio.gather(connection, return_exceptions=True)
