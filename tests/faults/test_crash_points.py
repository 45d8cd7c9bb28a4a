"""A process of a real chain dies at every crash point, one after the other, under users at work.

`FACTORYCHAIN_CRASH_POINTS=bridge.,engine.queue.` takes those that begin so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.aio.client import Client

from factorychain._core.crash_points import CRASH_POINTS
from factorychain._core.nats_permissions import ENGINE
from tests.e2e.aftermath import Aftermath
from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import ENDINGS, Closed, Frame, Socket, connected
from tests.e2e.witness import Lost, Witness

pytestmark = pytest.mark.asyncio(loop_scope="session")

WANTED = tuple(os.environ.get("FACTORYCHAIN_CRASH_POINTS", "").split(","))
THOUGHTS = 6
ANSWERS = {"city": "Turin", "sure": True}
PASSED_WITHIN_S = 120.0
HELPED_WITHIN_S = 15.0
_LAST_RUNS_S = 60.0
# What is passed only when another process has died before.
NEEDS_DEATH_OF = {
    "engine.adopt.": "engine",
    "engine.attempt.": "agents",
    "engine.settle.": "agents",
}
# What is passed only when runs are cancelled, one that waits first.
NEEDS_CANCEL = (
    "engine.cancel.",
    "engine.queue.marked",
    "engine.queue.leav",
    "engine.queue.left",
    "engine.queue.forgot",
)
# What is passed only while an engine stops.
NEEDS_STOP = ("engine.queue.hand", "engine.place.hand")
# What is passed only when more runs are wanted than agents have room for.
NEEDS_CROWD = ("engine.ticket.",)
# What is passed only when the last answer to a run that has ended comes.
NEEDS_LAST_ANSWER = ("engine.answer.keeping", "engine.answer.kept")
# What is passed only when storage has lost records, after which what waited at a dead engine is gone.
NEEDS_LOST_PLACES = ("engine.restore.",)
# What is passed only when storage has lost what a run that waits was wanted with.
NEEDS_LOST_INPUT = ("engine.queue.refus",)
NEEDS_LOSS = (*NEEDS_LOST_PLACES, *NEEDS_LOST_INPUT)
CANCELLER, ASKED, LOSER = "canceller", "asked", "loser"
ROOM = 12
CROWD = 8


class Crossing(Witness):
    """A user of `crosses`, who answers what is asked and always has a run that waits for a place."""

    agent = "crosses"
    on_busy = "enqueue"

    def __init__(self, chain: Chain, name: str) -> None:
        token, threads, story = chain.token(name), 3, str(THOUGHTS)
        super().__init__(lambda: chain.state.edge, token, name, threads=threads, story=story)
        self._answering: set[asyncio.Task[None]] = set()

    def _note(self, seen: object, event: Frame) -> None:
        super()._note(seen, event)  # type: ignore[arg-type]  # passed on as it came
        if event["type"] == "input_requested":
            task = asyncio.ensure_future(self._answer(event["run"], event["data"]["request"]))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, run: str, request: str) -> None:
        for _ in range(20):
            with contextlib.suppress(Lost, TimeoutError):
                await self._ready.wait()
                reply = await self._call("respond", run=run, request=request, value=True)
                if "result" in reply or reply["error"]["reason"] != "CHAIN_DEGRADED":
                    return
            await asyncio.sleep(0.3)


class AfterAttempts(Aftermath):
    """Runs may have begun again: each attempt is a story from its beginning."""

    def _check_run(self, run: str, events: list[Frame]) -> None:
        kinds = [each["type"] for each in events]
        assert sum(kind in ENDINGS for kind in kinds) == 1, f"{self.story}: {run} has {kinds}"
        assert kinds[-1] in ENDINGS, f"{self.story}: {run} goes on after its ending: {kinds}"
        attempts: list[list[str]] = []
        for each in events:
            if each["type"] == "agent_started":
                assert each["data"]["attempt"] > len(attempts), f"{self.story}: {run}: {kinds}"
                attempts.append([])
            if each["type"] == "agent_thinking":
                attempts[-1].append(each["data"]["text"].rpartition(" ")[2])
        for thoughts in attempts:
            assert thoughts == [str(index) for index in range(len(thoughts))], (self.story, run)
        ending = events[-1]["data"]
        if kinds[-1] == "agent_completed":
            assert len(attempts[-1]) == self.thoughts, (self.story, run)
        else:
            assert ending["reason"] == "AGENT_LOST", f"{self.story}: {run} ended with {ending}"


@dataclass
class Deaths:
    """Has processes die, and waits until they are back."""

    chain: Chain
    file: Path
    at: list[str] = field(default_factory=list)
    asking: list[str] = field(default_factory=list)
    """Runs that have ended with requests."""
    lost: dict[str, list[str]] = field(default_factory=dict)
    """What the log has to show of runs of which storage has lost something."""

    async def at_point(self, name: str) -> None:
        """The next process that passes `name` dies."""
        layer = name.partition(".")[0]
        old = self.chain.pid(layer)
        waiting = self.file.with_suffix(".next")
        waiting.write_text(name)
        waiting.rename(self.file)
        self.at.append(name)
        async with asyncio.timeout(PASSED_WITHIN_S):
            while self.file.exists():
                await self._help(name)
                with contextlib.suppress(TimeoutError):
                    await self._until_gone()
        await self.chain.restarted(layer, old)

    async def _help(self, name: str) -> None:
        if name.startswith(NEEDS_CANCEL):
            with contextlib.suppress(OSError, Closed, AssertionError, TimeoutError):
                async with asyncio.timeout(10):
                    await self._cancel_some()
        if name.startswith(NEEDS_STOP):
            self._end("engine", signal.SIGTERM)
        for prefixes, helping in (
            (NEEDS_CROWD, self._crowd),
            (NEEDS_LAST_ANSWER, self._answer_one),
            (NEEDS_LOST_PLACES, self._lose_places),
            (NEEDS_LOST_INPUT, self._lose_input),
        ):
            if name.startswith(prefixes):
                with contextlib.suppress(OSError, Closed, AssertionError, TimeoutError):
                    async with asyncio.timeout(10):
                        await helping()
        for prefix, layer in NEEDS_DEATH_OF.items():
            if name.startswith(prefix):
                await self._begin_one_that_may_not_be_repeated()
                for pid in self._end(layer, signal.SIGKILL):
                    await self.chain.restarted(layer, pid)

    def _end(self, layer: str, how: signal.Signals) -> list[int]:
        """Whom it has ended: nobody if the process has just died, of the point it may be."""
        pids = self.chain.state.pids.get(layer, [])
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        return pids

    async def _until_gone(self) -> None:
        """Somebody has died."""
        async with asyncio.timeout(HELPED_WITHIN_S):
            while self.file.exists():  # noqa: ASYNC110 - a file says nothing by itself
                await asyncio.sleep(0.05)

    async def _begin_one_that_may_not_be_repeated(self) -> None:
        with contextlib.suppress(OSError, Closed, AssertionError, TimeoutError):
            async with asyncio.timeout(10):
                async with connected(self.chain.state.edge, self.chain.token(CANCELLER)) as socket:
                    reply = await socket.call(
                        "start", agent="waits", input={"text": "60"}, thread="lost"
                    )
                    await socket.event(reply.get("result", {}).get("run", ""), "agent_thinking")

    async def _crowd(self) -> None:
        """More runs than agents have room for, for a moment."""
        async with contextlib.AsyncExitStack() as stack:
            for number in range(CROWD):
                token = self.chain.token(f"crowd-{number}")
                socket = await stack.enter_async_context(connected(self.chain.state.edge, token))
                for thread in ("1", "2"):
                    fields = {"agent": "waits", "input": {"text": "1.5"}, "on_busy": "enqueue"}
                    await socket.call("start", thread=thread, **fields)

    async def _answer_one(self) -> None:
        """A run that ends with requests, and all answers to it."""
        async with connected(self.chain.state.edge, self.chain.token(ASKED)) as socket:
            run = (await socket.start("asks", "stop", thread=f"asked-{len(self.asking)}"))["run"]
            await socket.ending(run)
            self.asking.append(run)
            for request, value in ANSWERS.items():
                await socket.call("respond", run=run, request=request, value=value)

    async def check_answers(self) -> None:
        """Every run that has ended with requests goes on, once, with what it was answered."""
        async with connected(self.chain.state.edge, self.chain.token(ASKED)) as socket:
            for run in self.asking:
                replies = [
                    await _answered(socket, run=run, request=request, value=value)
                    for request, value in [*ANSWERS.items(), *ANSWERS.items()]
                ]
                (following,) = {each["run"] for each in replies if each["run"] != run}
                ending = await socket.ending(following)
                assert ending["data"]["output"]["answers"] == ANSWERS, ending

    async def _lose_input(self) -> None:
        """What a run was wanted with is gone while it waits; it is found out when it is its turn."""
        async with connected(self.chain.state.edge, self.chain.token(LOSER)) as socket:
            for thread in ("1", "2"):
                run = await socket.start("waits", "3", thread=thread)
                await socket.event(run["run"], "agent_thinking")
            lost = await socket.start("waits", "3", thread="lost", on_busy="enqueue")
            self.lost[lost["run"]] = ["run_queued", "agent_failed"]
            await self._purge("queued")

    async def _lose_places(self) -> None:
        """The records of all users are gone while one has a run; their next start finds out."""
        async with connected(self.chain.state.edge, self.chain.token(LOSER)) as socket:
            lost = await socket.start("waits", "4", thread="lost")
            self.lost[lost["run"]] = ["agent_started", "agent_thinking", "agent_completed"]
            await socket.event(lost["run"], "agent_thinking")
            await self._purge("users")
            await socket.call("start", agent="waits", input={"text": "0"}, thread="next")

    async def check_lost(self) -> None:
        """Runs of which storage has lost something end by themselves, once: those that had begun as they
        would have, those that waited because their input is lost.
        """
        async with connected(self.chain.state.edge, self.chain.token(LOSER)) as socket:
            if self.lost:
                await socket.result("subscribe", thread="lost", after=0)
            for run, wanted in self.lost.items():
                ending = await socket.ending(run)
                assert ending["data"].get("reason") in (None, "INPUT_LOST"), (run, ending)
                assert [each["type"] for each in socket.run_events(run)] == wanted, run
            assert {each["run"] for each in socket.events("lost")} == set(self.lost)

    async def _purge(self, bucket: str) -> None:
        client, password = Client(), self.chain.data.nats_password(ENGINE)
        await client.connect(self.chain.state.nats, user=ENGINE, password=password)
        try:
            everything = {"KV-Operation": "PURGE", "Nats-Rollup": "all"}
            await client.publish(f"$KV.{bucket}.everything", headers=everything)
            await client.flush()
        finally:
            await client.close()

    async def _cancel_some(self) -> None:
        async with connected(self.chain.state.edge, self.chain.token(CANCELLER)) as socket:
            fields = {"agent": "waits", "input": {"text": "3"}, "on_busy": "enqueue"}
            replies = [await socket.call("start", thread=f"c{n}", **fields) for n in range(3)]
            for reply in reversed(replies):
                if "result" in reply:
                    await socket.call("cancel", run=reply["result"]["run"])


async def _answered(socket: Socket, **fields: object) -> Frame:
    """What an answer comes to, once the crowd has left room for the run that goes on."""
    while True:
        reply = await socket.call("respond", **fields)
        if reply.get("error", {}).get("reason") != "CAPACITY":
            found: Frame = reply["result"]
            return found
        await asyncio.sleep(reply["error"]["retry_after_s"])


@contextlib.asynccontextmanager
async def at_work(users: list[Crossing]) -> AsyncIterator[None]:
    """Users with run after run; it is left when the last run of each has ended."""
    done = asyncio.Event()
    connections = [asyncio.create_task(each.connect_for_ever()) for each in users]
    talks = [asyncio.create_task(each.talk(thread, done)) for each in users for thread in each.seen]
    try:
        yield
        done.set()
        _, hung = await asyncio.wait(talks, timeout=_LAST_RUNS_S)
        assert not hung, f"no ending was seen of {[each.waiting_for() for each in users]}"
        for talk in talks:
            talk.result()
    finally:
        for task in [*talks, *connections]:
            task.cancel()
        await asyncio.gather(*talks, *connections, return_exceptions=True)


@pytest.mark.timeout(1500)
async def test_a_process_dies_at_every_crash_point(tmp_path: Path) -> None:
    file = tmp_path / "crash"
    env = {
        "FACTORYCHAIN_MODE": "development",
        "FACTORYCHAIN_CRASH_FILE": str(file),
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "FACTORYCHAIN_HEARTBEAT_TTL_S": "3",
        "FACTORYCHAIN_CLEANUP_INTERVAL_S": "1",
        "FACTORYCHAIN_MAX_RUNS": str(ROOM),
    }
    async with running_chain(tmp_path / "chain", env=env) as chain:
        users = [Crossing(chain, f"user-{index}") for index in range(3)]
        deaths = Deaths(chain, file)
        wanted = [each for each in CRASH_POINTS if each.startswith(WANTED)]
        async with at_work(users):
            for name in wanted:
                if not name.startswith(NEEDS_LOSS):
                    await deaths.at_point(name)
        await deaths.check_answers()
        for name in wanted:
            if name.startswith(NEEDS_LOSS):
                await deaths.at_point(name)
        assert [each for user in users for each in user.broken] == []
        story = f"died at {deaths.at}"
        after = AfterAttempts(lambda: chain.state.edge, chain.token, THOUGHTS, story)
        for user in users:
            await after.check_log(user)
        others = [Crossing(chain, each) for each in (CANCELLER, ASKED, LOSER)]
        await asyncio.gather(*map(after.check_places, [*users, *others]))
        await deaths.check_lost()
