"""Bugs that are put into the services on purpose, to know that the simulation would find them.

Each replaces one decision of the services by a wrong one. It is applied in a child process of its
own (`running`), so nothing has to be put back. `hunting` looks for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from factorychain._core.ids import Principal, new_request_id, run_id_for
from factorychain._core.jetstream import Stream
from factorychain._core.kv import KvBucket
from factorychain._core.stored import NatsUnavailable, StoredMessage
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import Run
from factorychain_agents.outage import OutageWatch
from factorychain_bridge.batches import Append, Position
from factorychain_bridge.feed import ThreadFeed
from factorychain_bridge.items import Events, FeedItem, Sink
from factorychain_bridge.join import Join
from factorychain_bridge.thread_log import ReadForward, ThreadLog
from factorychain_bridge.writer import RunWriter
from factorychain_engine import responding
from factorychain_engine.admission.record import ActiveRun, Decision, UserRecord, admit
from factorychain_engine.agents.layer import Life
from factorychain_engine.lifeline import EndReason
from factorychain_engine.ownership.cleanup import CleanUp
from factorychain_engine.places import starts
from factorychain_engine.queue.promoting import Promoter
from factorychain_engine.runs.at_agents import AtAgents
from factorychain_engine.runs.attempts import Attempts
from factorychain_engine.supervisor import RunSupervisor
from factorychain_engine.validation import StartRequest, resuming_start

Bug = Callable[[], None]


def no_fence() -> None:
    """A writer goes on although its run was settled, or a later attempt has begun."""
    own = ThreadLog._compare_own

    def compare(self: ThreadLog, batch: LogBatch) -> None:
        if batch.attempt == self._context.attempt and batch.last_run_seq:
            own(self, batch)

    _patch(ThreadLog, "_compare", compare)


def earlier_attempts_go_on() -> None:
    """A lost attempt that wakes up goes on behind a later one."""
    inner = ThreadLog._compare

    def compare(self: ThreadLog, batch: LogBatch) -> None:
        if batch.ends or batch.attempt <= self._context.attempt:
            inner(self, batch)

    _patch(ThreadLog, "_compare", compare)


def acknowledged_before_durable() -> None:
    """What was taken is acknowledged before it is stored."""
    inner = RunWriter.events

    def events(self: RunWriter, events: list[tuple[int, bytes]]) -> None:
        inner(self, events)
        if not self._closed and not self._log.ended:
            self._receipts.acknowledged(events[-1][0])

    _patch(RunWriter, "events", events)


def double_adoption() -> None:
    """Who adopts does not look whether another engine was faster."""

    async def adopt(self: CleanUp, principal: Any, orphans: dict[str, str]) -> None:
        record = (await self._users.read(principal)).record
        for run in orphans:
            entry = record.find(run)
            if entry is not None and self._runs.find(principal, run) is None:
                self._adopt_run(principal, replace(entry, owner=self._engine_id))

    _patch(CleanUp, "_adopt", adopt)


def released_by_time() -> None:
    """A place counts as free when its run is old."""

    def by_time(record: UserRecord, wanted: ActiveRun, most: int) -> Decision:
        young = tuple(each for each in record.active if time.time() - each.admitted_at_s < 2)
        return admit(replace(record, active=young), wanted, most)

    _patch(starts, "admit", by_time)


def timeout_is_failure() -> None:
    """An append without an answer is sent again, as if it were known not to be stored."""
    inner = RunWriter._publish

    async def publish(self: RunWriter, append: Append, trace: str) -> int:
        try:
            return await inner(self, append, trace)
        except NatsUnavailable:
            return await self._stream.publish(self._subject, append.payload)

    _patch(RunWriter, "_publish", publish)


def resent_without_dedup() -> None:
    """A writer that takes over does not look how far the run has come."""
    inner = ThreadLog._compare_own

    def compare(self: ThreadLog, batch: LogBatch) -> None:
        if not self._opening or batch.ends:
            inner(self, batch)

    _patch(ThreadLog, "_compare_own", compare)


def joined_without_gap_check() -> None:
    """A live message is delivered although one before it was lost."""
    _patch(Join, "_is_gap", lambda *_: False)


def opened_without_reading() -> None:
    """Who opens a run again believes the log's end instead of reading from `base`."""

    async def read(self: RunWriter, step: ReadForward) -> None:
        last: StoredMessage | None = await self._stream.last_message(self._subject)
        if last is not None:
            batch = LogBatch.FromString(last.data)
            seq = batch.first_seq + len(batch.events) - 1
            self._log._position = Position(last.seq, seq, batch.epoch)
        self._log.on_read_done()

    _patch(RunWriter, "_read", read)


def limit_without_compare_and_set() -> None:
    """The user's record is overwritten whatever is stored by now."""
    inner = KvBucket.update

    async def update(
        self: KvBucket, key: str, value: bytes, revision: int, *, ttl_s: int | None = None
    ) -> int:
        if self._prefix == "$KV.users.":
            return await self.put(key, value)
        return await inner(self, key, value, revision, ttl_s=ttl_s)

    _patch(KvBucket, "update", update)


def words_of_others() -> None:
    """What somebody else was told is delivered in the place of the same kind of event of one's own: nothing
    but what it says could tell.
    """
    inner = ThreadFeed.write
    said: dict[tuple[object, str | None], dict[Principal, Event]] = {}

    def write(self: ThreadFeed, sink: Sink, item: FeedItem) -> bool:
        if not isinstance(item, Events):
            return inner(self, sink, item)
        batch = LogBatch.FromString(item.batch.SerializeToString())
        for own, event in zip(item.batch.events, batch.events, strict=True):
            kind = own.WhichOneof("event")
            heard = said.setdefault((asyncio.get_running_loop(), kind), {})
            for whose, other in heard.items():
                if whose != sink.principal and kind is not None:
                    getattr(event, kind).CopyFrom(getattr(other, kind))
            heard[sink.principal] = own
        return inner(self, sink, Events(batch, item.skip))

    _patch(ThreadFeed, "write", write)


def never_polled() -> None:
    """Nobody asks whether the last event has arrived."""
    _patch(ThreadFeed, "tick", lambda _: False)


def nobody_adopts() -> None:
    """The runs of an engine that is gone stay without one."""
    _patch(CleanUp, "_orphans", lambda *_: {})


def forgotten_places() -> None:
    """A place whose compare-and-set was stored without an answer is nobody's."""
    _patch(CleanUp, "_is_forgotten", lambda *_: False)


def follower_believed() -> None:
    """What only the leader knows is asked of whoever answers."""
    _patch(Stream, "_leader_get", Stream._direct_get_one)


def goes_on_twice() -> None:
    """An answer to a run that has ended starts another run each time."""

    def start(principal: Principal, ended: Run, plan: str) -> StartRequest:
        run = run_id_for(principal, new_request_id())
        return replace(resuming_start(principal, ended, plan), run=run)

    _patch(responding, "resuming_start", start)


def answer_dropped() -> None:
    """An answer is taken from the user before agents have it."""

    async def pretend(*_: object) -> bool:
        return True

    _patch(responding.Responder, "_to_agents", pretend)


def later_attempt_not_counted() -> None:
    """A run that was lost begins again as the attempt that it was."""

    async def take(_: Attempts, __: Principal, entry: ActiveRun, ___: float) -> ActiveRun:
        return entry

    _patch(Attempts, "take", take)


def promoted_twice() -> None:
    """Who gives a place to a run that waits does not look whether another engine was faster."""
    inner = Promoter._stored

    async def stored(self: Promoter, *change: Any) -> bool:
        _ = await inner(self, *change)
        return True

    _patch(Promoter, "_stored", stored)


def adoption_ends_runs() -> None:
    """An engine that adopts a run tells its agents to end it."""
    inner = RunSupervisor.adopt

    def adopt(self: RunSupervisor, principal: Principal, entry: ActiveRun) -> None:
        inner(self, principal, entry)
        run = self._runs.find(principal, entry.run)
        if run is not None:
            run.cancel(EndReason.INTERRUPTED)

    _patch(RunSupervisor, "adopt", adopt)


def broken_streams_lose_runs() -> None:
    """The end of an engine's stream to agents is taken for the end of what they had."""

    async def attach(self: AtAgents) -> None:
        self.give_up(EndReason.AGENT_LOST)

    _patch(AtAgents, "attach", attach)


def agents_never_give_up() -> None:
    """Agents go on however long nothing of a run gets into the log."""
    _patch(OutageWatch, "start", lambda *_: None)


def agents_are_lost_together() -> None:
    """An engine that loses a run together with its agents gives up what all other agents have, too."""
    give_up, follow = AtAgents.give_up, AtAgents.follow
    followed: dict[object, list[AtAgents]] = {}

    def follow_all(self: AtAgents, life: Life) -> None:
        followed.setdefault(self._agents, []).append(self)
        follow(self, life)

    def give_up_all(self: AtAgents, reason: EndReason) -> None:
        give_up(self, reason)
        if reason is EndReason.AGENT_LOST and self.boot:  # some had it
            for each in followed.pop(self._agents, ()):
                give_up(each, reason)

    _patch(AtAgents, "follow", follow_all)
    _patch(AtAgents, "give_up", give_up_all)


BUGS: Final[dict[str, Bug]] = {
    each.__name__: each
    for each in (
        no_fence,
        earlier_attempts_go_on,
        acknowledged_before_durable,
        double_adoption,
        released_by_time,
        timeout_is_failure,
        resent_without_dedup,
        joined_without_gap_check,
        opened_without_reading,
        limit_without_compare_and_set,
        words_of_others,
        never_polled,
        nobody_adopts,
        forgotten_places,
        follower_believed,
        goes_on_twice,
        answer_dropped,
        later_attempt_not_counted,
        promoted_twice,
        adoption_ends_runs,
        broken_streams_lose_runs,
        agents_never_give_up,
        agents_are_lost_together,
    )
}


def _patch(owner: object, name: str, with_: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, with_)
