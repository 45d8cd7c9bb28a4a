"""A bridge without its servers, on a real NATS: writers, hub and recovery, as the server wires them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from factorychain._core.component import ComponentGroup, TaskSet
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.jetstream import JetStream
from factorychain._core.link import Refusal
from factorychain._core.log_reader import ThreadLogReader, ensure_event_log, try_event_log
from factorychain._core.nats_connection import NatsConnection
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_bridge.bridge import AgentWebSocketBridge
from factorychain_bridge.history import LogHistory
from factorychain_bridge.hub import Hub
from factorychain_bridge.integration import Integration
from factorychain_bridge.items import CaughtUp, Events, FeedItem, Reset, StopReason
from factorychain_bridge.log_watch import LogWatch
from factorychain_bridge.recovery import Recovery
from factorychain_bridge.subscription import Subscription
from factorychain_bridge.writer import LogAccess, RunWriter
from tests.nats_fixture import NatsServer
from tests.unit.bridge.samples import ANA, THREAD

SHARDS = 1
LOG_MAX_AGE_S = 3600


class Replica:
    """One bridge replica."""

    def __init__(
        self,
        nats: NatsServer,
        *,
        poll_s: float = 0.1,
        delay_s: float = 0.05,
        timeout_s: float = 2.0,
        look_s: float = 0.1,
    ) -> None:
        self.log = NatsConnection(nats.endpoint("bridge"), "log", timeout_s=timeout_s)
        self.live = NatsConnection(nats.endpoint("bridge"), "live", timeout_s=timeout_s)
        self.js = JetStream(self.log)
        self.reader = ThreadLogReader(self.js, SHARDS)
        self.integration = Integration(attempts=3, delay_s=delay_s, now_s=time.time)
        self.recovery = Recovery(
            self.integration,
            (self.log, self.live),
            self._probe,
            partial(try_event_log, self.js, SHARDS),
            LogWatch(self.js, SHARDS, max_age_s=LOG_MAX_AGE_S),
            look_s=look_s,
            probe_timeout_s=0.5,
        )
        self.hub = Hub(self.live, LogHistory(self.reader), poll_s=poll_s)
        access = LogAccess(self.reader, self.recovery, TaskSet("writers"), 512 * 1024)
        self.bridge = AgentWebSocketBridge(access, self.hub, self.integration)
        self.group = ComponentGroup([self.log, self.live, self.recovery, self.hub, self.bridge])

    async def _probe(self) -> None:
        await ensure_event_log(self.js, SHARDS, max_age_s=LOG_MAX_AGE_S)

    @classmethod
    @asynccontextmanager
    async def running(
        cls, nats: NatsServer, *, poll_s: float = 0.1, timeout_s: float = 2.0, look_s: float = 0.1
    ) -> AsyncIterator[Self]:
        replica = cls(nats, poll_s=poll_s, timeout_s=timeout_s, look_s=look_s)
        await replica.group.start()
        try:
            yield replica
        finally:
            await replica.group.stop()

    async def open(self, context: UserExecutionContext, *, resumed: bool = False) -> Sender:
        receipts = Receipts()
        opening = RunOpen(token=context.token, resumed=resumed)
        writer = self.bridge.open(context, opening, receipts)
        await writer.wait_opened()
        return Sender(writer, receipts)

    async def subscribe(
        self, sink: Collected, after: int = 0, epoch: int = 0, thread: str = THREAD
    ) -> Subscription:
        subscription = await self.hub.subscribe(sink.principal, thread, after, epoch, sink)
        subscription.go()
        return subscription


@dataclass
class Receipts:
    """What the writer answered on its channel."""

    durable_run_seq: int = 0
    ended: bool = False
    rejections: list[tuple[int, str]] = field(default_factory=list)
    refusal: Refusal | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledged(self, durable_run_seq: int, ended: bool = False) -> None:
        assert durable_run_seq >= self.durable_run_seq
        self.durable_run_seq = durable_run_seq
        self.ended = self.ended or ended
        self.changed.set()

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        self.rejections.append((run_seq, reason))
        self.changed.set()

    def refused(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.changed.set()

    async def until(self, holds: Callable[[Receipts], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(self):
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Sender:
    """An open run, as an emitter has it."""

    writer: RunWriter
    receipts: Receipts

    def send(self, *events: tuple[int, bytes]) -> None:
        self.writer.events(list(events))

    async def durable(self, run_seq: int) -> None:
        await self.receipts.until(lambda said: said.durable_run_seq >= run_seq)

    async def ended(self) -> None:
        await self.receipts.until(lambda said: said.ended)

    async def refused(self) -> Refusal:
        await self.receipts.until(lambda said: said.refusal is not None)
        assert self.receipts.refusal is not None
        return self.receipts.refusal


class Collected:
    """A sink that keeps everything, and checks order; `limit` makes it slow."""

    def __init__(
        self, principal: Principal = ANA, after: int = 0, limit: int | None = None
    ) -> None:
        self.principal = principal
        self.items: list[FeedItem] = []
        self.texts: list[str] = []
        self.seq = after
        self.stops: list[StopReason] = []
        self._limit = limit
        self._changed = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()

    def deliver(self, item: FeedItem) -> bool:
        if self._limit is not None and len(self.items) >= self._limit:
            return False
        self.items.append(item)
        if isinstance(item, Reset):
            self.texts.clear()
            self.seq = -1
        elif isinstance(item, Events):
            if self.seq == -1:
                self.seq = item.first_seq - 1
            assert item.first_seq == self.seq + 1, f"{item} after {self.seq}"
            self.seq = item.last_seq
            self.texts += [event.agent_thinking.text for event in item.events()]
        self._changed.set()
        return True

    async def room(self) -> None:
        await self._roomy.wait()

    def stop(self, why: StopReason) -> None:
        self.stops.append(why)

    def hold(self) -> None:
        """No room for replay from now on."""
        self._roomy.clear()

    def resume(self) -> None:
        self._roomy.set()

    @property
    def caught_up(self) -> bool:
        return any(isinstance(each, CaughtUp) for each in self.items)

    @property
    def resets(self) -> list[str]:
        return [each.reason.value for each in self.items if isinstance(each, Reset)]

    async def until(self, holds: Callable[[Collected], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(self):
                self._changed.clear()
                await self._changed.wait()

    async def has(self, count: int) -> None:
        await self.until(lambda sink: len(sink.texts) >= count)
