"""Reads a thread's log: where it ends, what is in it, whether a run has ended.

Invariant: `last` is the leader's answer, and `read_from` yields everything that is stored up to the
sequence it was asked for, even when the replica that answers is behind, in order and once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from factorychain._core.ids import Principal, log_stream, log_subject, shard_of, thread_key
from factorychain._core.jetstream import JetStream, Stream
from factorychain._core.stored import StoredMessage
from factorychain._core.stream_config import StreamConfig
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event

_SHARDS = "factorychain_shards"
# One token where a thread has two, so that no filter of users or threads matches it.
_TRY = "try"
_TRY_KEPT = "10s"


class ReadableStream(Protocol):
    """What reading forward needs of a stream."""

    async def read_range(self, subject: str, from_seq: int) -> tuple[list[StoredMessage], bool]: ...

    async def next_message(self, subject: str, from_seq: int) -> StoredMessage | None: ...


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The end of a thread's log."""

    stream_seq: int
    """Stream sequence of the last message."""
    seq: int
    """Seq of the last event."""
    epoch: int
    run: str
    """The run that wrote last."""
    ended: bool
    """Whether that run's ending is the last event."""
    batch: LogBatch
    """The last message itself."""


@dataclass(frozen=True, slots=True)
class EndingFound:
    """A run's ending in the log."""

    event: Event
    seq: int
    epoch: int
    attempt: int
    stream_seq: int
    is_last: bool
    """Whether it was the thread's last event when it was read."""


async def ensure_event_log(
    js: JetStream, shards: int, *, max_age_s: float, max_bytes: int = -1, replicas: int = 1
) -> None:
    """Create the streams of the log. `max_bytes` is for each shard; -1 has no bound.

    Raises:
        StorageRefused: the log exists with another number of shards; its threads would not be found.
        NatsUnavailable: no answer.
    """
    for shard in range(shards):
        await js.ensure_stream(
            StreamConfig(
                name=log_stream(shard),
                subjects=[f"ev.{shard}.>"],
                max_age_s=max_age_s,
                max_bytes=max_bytes,
                replicas=replicas,
                republish=(f"ev.{shard}.>", f"live.{shard}.>"),
                metadata={_SHARDS: str(shards)},
            )
        )


async def try_event_log(js: JetStream, shards: int) -> None:
    """Store something in every shard, which nobody reads and which goes by itself.

    A server whose disk was full answers every question about a stream and none to what it is to store,
    also when there is room again, until it is restarted (nats-server 2.15): only a write tells.

    Raises:
        NatsUnavailable: no answer.
        StorageRefused: the server takes nothing.
    """
    for shard in range(shards):
        stream = js.stream(log_stream(shard))
        await stream.publish(try_subject(shard), b"", headers={"Nats-TTL": _TRY_KEPT})


def try_subject(shard: int) -> str:
    """Of what `try_event_log` stores."""
    return f"ev.{shard}.{_TRY}"


def event_subjects(shard: int) -> str:
    """Of all events, and of nothing else."""
    return f"ev.{shard}.*.*"


class ThreadLogReader:
    """The log of every thread."""

    def __init__(self, js: JetStream, shards: int) -> None:
        self._shards = shards
        self._streams = [js.stream(log_stream(shard)) for shard in range(shards)]

    async def last(self, principal: Principal, thread: str) -> LogPosition | None:
        """The thread's last message, as the leader knows it; None for an empty thread. One request."""
        stream, subject = self.locate(principal, thread)
        message = await stream.last_message(subject)
        return None if message is None else position_of(message)

    async def read_from(
        self, principal: Principal, thread: str, after_stream_seq: int, upto: int
    ) -> AsyncIterator[tuple[int, LogBatch]]:
        """The messages after `after_stream_seq` up to `upto`, both stream sequences.

        `upto` is a sequence that the caller knows to be stored, for instance of `last`. What has
        aged out since is left out: compare the first batch's `first_seq` with what is expected.
        """
        stream, subject = self.locate(principal, thread)
        async for message in read_upto(stream, subject, after_stream_seq, upto):
            yield message.seq, LogBatch.FromString(message.data)

    async def find_ending(
        self, principal: Principal, thread: str, run: str, base: int
    ) -> EndingFound | None:
        """The run's ending, searched from `base` (the run's token has it) to the log's end."""
        last = await self.last(principal, thread)
        if last is None or last.stream_seq <= base:
            return None
        if last.run == run:
            return _ending_in(last.batch, last.stream_seq, is_last=True) if last.ended else None
        async for stream_seq, batch in self.read_from(principal, thread, base, last.stream_seq):
            if batch.run == run and batch.ends:
                return _ending_in(batch, stream_seq, is_last=False)
        return None

    def locate(self, principal: Principal, thread: str) -> tuple[Stream, str]:
        """The stream and the subject of a thread."""
        ukey, tkey = principal.ukey, thread_key(thread)
        shard = shard_of(ukey, tkey, self._shards)
        return self._streams[shard], log_subject(self._shards, ukey, tkey)


def position_of(message: StoredMessage) -> LogPosition:
    """The position of a thread whose last message this is."""
    batch = LogBatch.FromString(message.data)
    last_seq = batch.first_seq + max(len(batch.events), 1) - 1
    return LogPosition(message.seq, last_seq, batch.epoch, batch.run, batch.ends, batch)


async def read_upto(
    stream: ReadableStream, subject: str, after_stream_seq: int, upto: int
) -> AsyncIterator[StoredMessage]:
    """Every message of `subject` in (after_stream_seq, upto], in order and once."""
    at = after_stream_seq
    while at < upto:
        messages, more = await stream.read_range(subject, at + 1)
        for message in messages:
            if message.seq > upto:
                return
            at = message.seq
            yield message
        if at >= upto or more:
            continue
        # The replica that answered has no more, but the leader may.
        missing = await stream.next_message(subject, at + 1)
        if missing is None or missing.seq > upto:
            return
        at = missing.seq
        yield missing


def _ending_in(batch: LogBatch, stream_seq: int, *, is_last: bool) -> EndingFound:
    seq = batch.first_seq + len(batch.events) - 1
    return EndingFound(batch.events[-1], seq, batch.epoch, batch.attempt, stream_seq, is_last)
