"""Deltas of one run: which may leave, and which are held as the possible beginning of a secret.

Invariant: what is held leaves as one event that carries the last number, so that a group is durable
as a whole or not at all and can be sent again as a whole; at most one message is held at a time, and
anything else that comes releases it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from factorychain.types.v1.event_pb2 import Event, MessageDelta, ThinkingDelta
from factorychain_emitter.redaction import Scanner, TextStream

REMEMBERED_MESSAGES = 32
"""Messages of a run whose last characters are remembered, so that a secret cannot be split between
deltas with something else in between."""


class Leaving(NamedTuple):
    """A delta that may leave; it stands for those from `first` on."""

    first: int
    last: int
    event: Event
    empty: bool
    """All of its text was taken out."""


class MessageStreams:
    """The streamed messages of one run."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._streams: OrderedDict[tuple[str, str], TextStream] = OrderedDict()
        self._holding: tuple[str, str] | None = None
        self._held: list[tuple[int, Event]] = []
        self.redacted: list[str] = []
        """Names of the secrets that were taken out since the owner looked last."""

    @property
    def held_from(self) -> int | None:
        """The number of the first delta that is held."""
        return self._held[0][0] if self._held else None

    def take(self, run_seq: int, kind: str, event: Event) -> list[Leaving]:
        """Takes a delta; returns what may leave now, in order."""
        delta = _delta(kind, event)
        key = (kind, delta.message)
        leaving = self.release(last=False) if self._holding not in (None, key) else []
        stream = self._stream(key)
        text = stream.feed(delta.text)
        self._collect(stream)
        if text is None:
            self._holding = key
            self._held.append((run_seq, event))
            return leaving
        if self._held:
            self._held.append((run_seq, event))
            return [self._group(text)]
        if text != delta.text:
            delta.text = text
        leaving.append(Leaving(run_seq, run_seq, event, not text))
        return leaving

    def release(self, *, last: bool) -> list[Leaving]:
        """What is held, because something else comes; `last`: because the run ends."""
        if self._holding is None:
            return []
        stream = self._streams[self._holding]
        text = stream.finish() if last else stream.interrupt()
        self._collect(stream)
        return [self._group(text)]

    def _group(self, text: str) -> Leaving:
        first, event = self._held[0]
        last = self._held[-1][0]
        _delta(event.WhichOneof("event") or "", event).text = text
        self._held.clear()
        self._holding = None
        return Leaving(first, last, event, not text)

    def _stream(self, key: tuple[str, str]) -> TextStream:
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = TextStream(self._scanner)
            if len(self._streams) > REMEMBERED_MESSAGES:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(key)
        return stream

    def _collect(self, stream: TextStream) -> None:
        if stream.redacted:
            self.redacted += stream.redacted
            stream.redacted.clear()


def _delta(kind: str, event: Event) -> MessageDelta | ThinkingDelta:
    return event.message_delta if kind == "message_delta" else event.thinking_delta
