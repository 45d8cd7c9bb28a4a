"""Messages of the log, built from what a run's writer holds.

Invariants: a batch holds whole pieces, in order; neighbouring deltas are merged only within one message
and one batch, so that a batch never depends on what was merged before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from factorychain._core.event_kinds import DELTAS, ENDINGS, ENGINE_LIFECYCLE
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event

MERGED_MAX_BYTES: Final = 32 * 1024
"""Deltas are merged up to this, well below the limit of one event."""
HEADER_BYTES: Final = 1024
"""More than the fields around the events of a batch take."""

_FRAME_BYTES: Final = 6  # tag and length of one event
_EVENTS_TAG: Final = LogBatch.EVENTS_FIELD_NUMBER << 3 | 2


@dataclass(frozen=True, slots=True)
class Position:
    """The end of a thread's log, as far as a writer knows."""

    stream_seq: int
    """0: the log is empty."""
    seq: int
    epoch: int


@dataclass(slots=True)
class Entry:
    """What came in one piece; never changed. No events: it was rejected and waits for those before it."""

    run_seq: int
    events: tuple[Event, ...] = ()
    kinds: tuple[str, ...] = ()
    """The kind of each event."""
    parts: tuple[bytes, ...] = ()
    """Each event, serialized."""
    size_bytes: int = 0
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    """One append to be made now."""

    payload: bytes
    expected: int
    """Stream sequence that the thread's last message must have; 0: there must be none."""
    seq: int
    """The thread's last seq once it is stored."""
    epoch: int
    entries: int
    """How many of the waiting entries are in it."""
    events: int
    last_run_seq: int
    begins: bool
    """Whether it begins with the first event of an attempt."""
    ends: bool
    trace: str
    """`traceparent` of its last event."""


class Unfit(Exception):
    """A piece that the log does not take."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def read_entry(
    context: UserExecutionContext, run_seq: int, parts: Sequence[bytes], max_bytes: int
) -> Entry:
    """The piece as it will be stored.

    Raises:
        Unfit: It cannot be read, is too large, or is not for this token to say.
    """
    try:
        events = tuple([Event.FromString(part) for part in parts])
    except DecodeError:
        raise Unfit("EVENT_UNREADABLE", "the bytes are no factorychain.types.v1.Event") from None
    kinds = tuple([event.WhichOneof("event") or "" for event in events])
    _check_kinds(context, run_seq, kinds)
    kept = tuple([_bare(event, part) for event, part in zip(events, parts, strict=True)])
    size_bytes = sum(map(len, kept)) + _FRAME_BYTES * len(kept)
    if size_bytes > max_bytes - HEADER_BYTES:
        raise Unfit(
            "EVENT_TOO_LARGE", f"{size_bytes} bytes; the log takes {max_bytes - HEADER_BYTES}"
        )
    return Entry(run_seq, events, kinds, kept, size_bytes, kinds[-1] in ENDINGS)


def _check_kinds(context: UserExecutionContext, run_seq: int, kinds: Sequence[str]) -> None:
    if "" in kinds:
        raise Unfit("EVENT_UNREADABLE", "the event says nothing that this version knows")
    if context.scope is Scope.LIFECYCLE:
        if run_seq or not ENGINE_LIFECYCLE.issuperset(kinds):
            raise Unfit("NOT_ALLOWED", "a lifecycle token queues or settles a run, with run_seq 0")
    elif not run_seq or "run_queued" in kinds:
        raise Unfit("NOT_ALLOWED", "a run's own events carry a run_seq and never queue it")
    if len(kinds) > 1 and not ENDINGS.isdisjoint(kinds[:-1]):
        raise Unfit("AFTER_ENDING", "nothing can follow the run's ending")


def _bare(event: Event, part: bytes) -> bytes:
    # Delivery numbers events from the batch around them; numbers of the sender's own would mislead.
    if not event.seq and not event.run:
        return part
    event.ClearField("seq")
    event.ClearField("run")
    return event.SerializeToString()


def first_entries(pending: Iterable[Entry], max_bytes: int) -> list[Entry]:
    """The entries of the next batch: as many as fit, at least one."""
    found: list[Entry] = []
    room = max_bytes - HEADER_BYTES
    for entry in pending:
        room -= entry.size_bytes
        # A rejected entry ends the batch: it is acknowledged after those before it.
        if not entry.events or (found and room < 0):
            break
        found.append(entry)
    return found


def build(context: UserExecutionContext, position: Position, entries: Sequence[Entry]) -> Append:
    """The append that adds `entries` after `position`."""
    last = entries[-1]
    events = _merged(entries)
    header = LogBatch(
        tenant=context.principal.tenant,
        user=context.principal.user,
        thread=context.thread,
        run=context.run,
        attempt=context.attempt,
        first_run_seq=entries[0].run_seq,
        last_run_seq=last.run_seq,
        epoch=position.epoch,
        first_seq=position.seq + 1,
        ends=last.ends,
    )
    return Append(
        payload=header.SerializeToString() + b"".join(map(_framed, events)),
        expected=position.stream_seq,
        seq=position.seq + len(events),
        epoch=position.epoch,
        entries=len(entries),
        events=len(events),
        last_run_seq=last.run_seq,
        begins=entries[0].kinds[0] == "agent_started",
        ends=last.ends,
        trace=last.events[-1].trace,
    )


def _framed(part: bytes) -> bytes:
    """An event as one entry of `LogBatch.events` in protobuf's wire format: it need not be parsed,
    copied into the batch and serialized again.
    """
    size = len(part)
    head = bytearray((_EVENTS_TAG,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + part


# --- merging -----------------------------------------------------------------------------------


def _merged(entries: Iterable[Entry]) -> list[bytes]:
    found: list[bytes] = []
    same: list[Event] = []  # neighbouring deltas of one message, of which the first is found[-1]
    size_bytes = 0
    for entry in entries:
        for event, kind, part in zip(entry.events, entry.kinds, entry.parts, strict=True):
            size_bytes += len(part)
            if (
                kind in DELTAS
                and same
                and size_bytes <= MERGED_MAX_BYTES
                and _continues(same[-1], event, kind)
            ):
                same.append(event)
                continue
            _join(same, found)
            same = [event] if kind in DELTAS else []
            size_bytes = len(part)
            found.append(part)
    _join(same, found)
    return found


def _continues(before: Event, event: Event, kind: str) -> bool:
    if before.WhichOneof("event") != kind or before.path != event.path:
        return False
    same: bool = getattr(before, kind).message == getattr(event, kind).message
    return same


def _join(same: Sequence[Event], into: list[bytes]) -> None:
    """Put the text of all of them into the last of `into`, whose time and trace stay."""
    if len(same) < 2:
        return
    merged = Event.FromString(into[-1])  # not the entry's own: that may be batched again
    kind = merged.WhichOneof("event") or ""
    getattr(merged, kind).text = "".join([getattr(event, kind).text for event in same])
    into[-1] = merged.SerializeToString()
