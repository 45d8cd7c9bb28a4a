"""History for the feeds, from JetStream.

Invariant: a page holds every message that its thread's log still has in the page's range, also when
the replica that answers is behind the leader.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from factorychain._core.ids import Principal
from factorychain._core.log_reader import LogPosition, ThreadLogReader, position_of
from factorychain._core.logging import get_logger
from factorychain._core.stored import StoredMessage
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain_bridge.feed import Page
from factorychain_bridge.items import Stored
from factorychain_bridge.join import LogEnd, Read

log = get_logger(__name__)

PAGE_MAX_MESSAGES = 64
PAGE_MAX_BYTES = 256 * 1024


class LogHistory:
    """What the log of any thread holds."""

    def __init__(self, reader: ThreadLogReader) -> None:
        self._reader = reader

    async def end(self, principal: Principal, thread: str) -> LogEnd | None:
        """Where the thread begins and ends; None: nothing is in it."""
        last = await self._reader.last(principal, thread)
        if last is None:
            return None
        first_seq = last.batch.first_seq
        if first_seq > 1:
            stream, subject = self._reader.locate(principal, thread)
            first = await stream.next_message(subject, 1)
            first_seq = first_seq if first is None else position_of(first).batch.first_seq
        return _end(last, first_seq)

    async def last(self, principal: Principal, thread: str) -> LogEnd | None:
        """Where it ends; `first_seq` is 0."""
        last = await self._reader.last(principal, thread)
        return None if last is None else _end(last, 0)

    async def page(self, principal: Principal, thread: str, read: Read) -> Page:
        """The next messages of `read`."""
        stream, subject = self._reader.locate(principal, thread)
        messages, more = await stream.read_range(
            subject, read.after + 1, batch=PAGE_MAX_MESSAGES, max_bytes=PAGE_MAX_BYTES
        )
        if not messages:
            # The replica that answered may be behind; the leader is not.
            missing = await stream.next_message(subject, read.after + 1)
            messages, more = ([], False) if missing is None else ([missing], True)
        elif messages[-1].seq < read.upto:
            more = True
        upto = messages[-1].seq if messages and more else max(read.upto, read.after)
        return Page([found for each in messages if (found := stored(each)) is not None], upto)


def stored(message: StoredMessage) -> Stored | None:
    """The batch in a message; None (and a log line) for one that is none."""
    try:
        batch = LogBatch.FromString(message.data)
    except DecodeError:
        log.exception(
            "a message of the log cannot be read", subject=message.subject, seq=message.seq
        )
        return None
    previous = message.previous_seq or None
    trace = message.headers.get("traceparent", "")
    return Stored(message.seq, previous, batch, len(message.data), trace)


def _end(last: LogPosition, first_seq: int) -> LogEnd:
    active_run = "" if last.ended else last.run
    return LogEnd(first_seq, last.stream_seq, last.seq, last.epoch, active_run)
