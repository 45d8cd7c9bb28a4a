"""Users in front of a chain: they start runs, cancel some, lose their sockets and resume.

Invariant: a client repeats a start whose outcome it does not know with the same request id, and asks
for every thread's events from the last that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random

import orjson

from factorychain._core.ids import Principal, resumed_run_id, run_id_for
from tests.simulation import services
from tests.simulation.loop import Process
from tests.simulation.network import End, Network
from tests.simulation.observing import Observer, Seen
from tests.simulation.orders import Order

_REPLY_WITHIN_S = 8.0
_ENDED_WITHIN_S = 130.0
"""Some wait for two that hang for their whole lives, when no engine was there to cancel those."""
# Reasons after which the same start may succeed later.
_LATER = (
    "CHAIN_DEGRADED",
    "USER_ENGINE_LIMIT",
    "USER_QUEUE_LIMIT",
    "THREAD_BUSY",
    "CAPACITY",
    "UNAVAILABLE",
)


class Lost(Exception):
    """The socket is gone, or an answer did not come."""


@dataclass
class Client:
    """One device of one user."""

    network: Network
    observer: Observer
    principal: Principal
    bridges: Sequence[str]
    threads: Sequence[str]
    random: Random
    speaks: bool = True
    """Whether it answers what agents ask; a second device of a user only listens."""
    seen: dict[str, Seen] = field(default_factory=dict)
    idle: bool = True

    def __post_init__(self) -> None:
        self.process = Process(f"client-{self.principal.user}")
        self.seen = {each: Seen() for each in self.threads}
        self._token = services.user_token(self.principal)
        self._numbers = count(1)
        self._replies: dict[str, asyncio.Future[dict[str, object]]] = {}
        self._end: End | None = None
        self._ready = asyncio.Event()
        self._busy = 0
        self._pending: dict[str, str] = {}
        """What a run that this user saw end still wants to know."""

    # --- what the user does -----------------------------------------------------------------

    def begin(self, lanes: Sequence[Sequence[Order]]) -> None:
        """Stays connected, and works off each lane beside the others."""
        loop = self.network.loop
        _ = loop.spawn(self.process, self._stay_connected(), "connection")
        self._busy = len(lanes)
        self.idle = not lanes
        for lane in lanes:
            _ = loop.spawn(self.process, self._work_off(lane), "lane")

    def drop(self) -> None:
        """The user walks into a tunnel."""
        if self._end is not None:
            self._end.close()
            self._lost()

    async def _work_off(self, lane: Sequence[Order]) -> None:
        for number, order in enumerate(lane):
            await asyncio.sleep(1.0 if order.together else self.random.uniform(0, 1.5))
            await self._run(
                order, f"{order.thread}-{order.agent}-{id(lane) and number}-{next(self._numbers)}"
            )
        self._busy -= 1
        self.idle = not self._busy

    async def _run(self, order: Order, request_id: str) -> None:
        fields = {"agent": order.agent, "thread": order.thread, "request_id": request_id}
        fields["on_busy"] = order.on_busy
        fields["input"] = {"text": order.input}  # type: ignore[assignment]
        wanted = run_id_for(self.principal, request_id)
        self.observer.endings.want(wanted, self.principal, order)
        run = await self._insist("start", 40 if order.patient else 1, **fields)
        if run is None:
            return
        self.observer.admitted[run] = self.principal, order.thread
        if order.cancel_after_s is not None:
            await asyncio.sleep(order.cancel_after_s)
            self.observer.endings.cancel(run)
            with suppress(Lost):
                _ = await self._ask("cancel", run=run)
        await self._until_ended(order.thread, run)
        if order.interrupts:
            await self._go_on(order, run)

    async def _go_on(self, order: Order, run: str) -> None:
        """Answers, twice at once, what a run has ended with: one run goes on, and no other."""
        thread, going_on = order.thread, resumed_run_id(self.principal, run)
        while not self.seen[thread].has_ended(run):  # noqa: ASYNC110 - time is free
            await asyncio.sleep(0.2)
        if run not in self._pending:  # lost, or wanted no more
            return
        self.observer.endings.want(going_on, self.principal, order, resumes=True)
        found = await asyncio.gather(*(self._answered(run) for _ in range(2)))
        following = {each for each in found if each is not None}
        if len(following) > 1:
            self.observer.violated(f"{run} goes on as {following}")
        for each in following:
            self.observer.admitted[each] = self.principal, thread
            await self._until_ended(thread, each)

    async def _answered(self, run: str) -> str | None:
        """The run that goes on; asked again until it is known."""
        value = f"canary-{self.principal.user}"
        return await self._insist("respond", run=run, request=self._pending[run], value=value)

    async def _insist(self, op: str, times: int = 40, **fields: str) -> str | None:
        """The run that an answer names; None if there was none."""
        reason = ""
        for _ in range(times):
            try:
                reply = await self._ask(op, **fields)
            except Lost:
                continue
            error = reply.get("error")
            if error is None:
                return str(reply["result"]["run"])  # type: ignore[index]
            reason = error["reason"]  # type: ignore[index]
            if reason not in _LATER:
                self.observer.violated(f"{self.principal.user} was answered {error}")
                return None
            await asyncio.sleep(self.random.uniform(0.2, 1.0))
        if times > 1 and reason == "CHAIN_DEGRADED":  # every fault is over by now
            self.observer.violated(f"{self.principal.user} was refused for ever: {fields}")
        return None

    async def _answer(self, thread: str, run: str, request: str) -> None:
        """Says what the agent asks for; also more than once, if it is not known to be heard."""
        for _ in range(5):
            with suppress(Lost):
                value = f"canary-{self.principal.user}"
                reply = await self._ask("respond", run=run, request=request, value=value)
                error = reply.get("error")
                if error is None:
                    self.observer.answered[run, request] = self.principal, thread
                if error is None or error["reason"] not in _LATER:  # type: ignore[index]
                    return
            await asyncio.sleep(0.5)

    async def _until_ended(self, thread: str, run: str) -> None:
        # How it ended is read from the log at the end; here it only matters that this user saw it.
        try:
            async with asyncio.timeout(_ENDED_WITHIN_S):
                while not self.observer.has_ended(self.principal, thread, run):  # noqa: ASYNC110 - time is free
                    await asyncio.sleep(0.5)
        except TimeoutError:
            self.observer.violated(f"{run} of {self.principal.user} has no ending")

    # --- the socket -------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            end = self.network.connect(f"{self.random.choice(self.bridges)}:{services.EDGE_PORT}")
            if end is not None:
                await self._serve(end)
            await asyncio.sleep(self.random.uniform(0.05, 0.5))

    async def _serve(self, end: End) -> None:
        self._end, self._gone = end, asyncio.Event()
        end.on_message, end.on_lost = self._take, self._lost
        self._following: set[str] = set()
        try:
            await self._ask_now("auth", token=self._token)
            for thread, seen in self.seen.items():
                self._following.add(thread)
                await self._ask_now("subscribe", thread=thread, after=seen.last, epoch=seen.epoch)
            self._ready.set()
            await self._gone.wait()
        except Lost:
            end.close()
        self._lost()

    async def _ask(self, op: str, **fields: object) -> dict[str, object]:
        await self._ready.wait()
        return await self._ask_now(op, **fields)

    async def _ask_now(self, op: str, **fields: object) -> dict[str, object]:
        number, end = str(next(self._numbers)), self._end
        if end is None:
            raise Lost
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        end.send(orjson.dumps({"op": op, "id": number, **fields}).decode())
        try:
            async with asyncio.timeout(_REPLY_WITHIN_S):
                answer: dict[str, object] = await reply
        except TimeoutError:
            raise Lost from None
        finally:
            self._replies.pop(number, None)
        if op in ("auth", "subscribe") and "error" in answer:
            raise Lost
        return answer

    def _take(self, data: bytes) -> None:
        text = data.decode()
        self.observer.frame(self.principal, text)
        frame = orjson.loads(data)
        if frame["op"] in ("reply", "ready", "error"):
            waiting = self._replies.get(frame.get("id", ""))
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)
        elif frame["op"] == "events":
            self.observer.events(self.seen[frame["thread"]], frame["thread"], frame)
            for event in frame["events"] if self.speaks else ():
                for each in event["data"].get("pending", ()):
                    self._pending[event["run"]] = each["request"]
                if event["type"] == "input_requested":
                    request = event["data"]["request"]
                    answering = self._answer(frame["thread"], event["run"], request)
                    _ = asyncio.get_running_loop().create_task(answering)
        elif frame["op"] == "reset" and self.seen[frame["thread"]].events:
            self.observer.violated(f"{frame['thread']} was reset: {frame['reason']}")

    def _lost(self) -> None:
        self._end = None
        self._ready.clear()
        self._gone.set()
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(Lost())
