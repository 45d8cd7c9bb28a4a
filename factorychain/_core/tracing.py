"""Spans and W3C trace context.

A span of our own instead of the SDK's: it costs a few microseconds with no exporter and not much
more with one, while the SDK's costs 41-65. It is a real `opentelemetry.trace.Span`, so spans that
libraries make inside it become its children.

Invariants: ids are always valid, exporter or not; leaving a span restores what was current before
it and never raises, in whatever task or context that happens (opentelemetry-python#2357); no span
carries the text of an exception.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

from factorychain.errors import ErrorCode, FactoryChainError

Attributes = Mapping[str, AttributeValue]

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(
    r"(?!ff|00-.{53})[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
# The caller's mistakes are no errors of the span that served them.
_NOT_A_FAULT = frozenset(
    {
        ErrorCode.CANCELLED,
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.NOT_FOUND,
        ErrorCode.ALREADY_EXISTS,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.RESOURCE_EXHAUSTED,
        ErrorCode.FAILED_PRECONDITION,
    }
)


class SpanSink(Protocol):
    """Where ended spans go. Called in the thread of who ends them; must not block."""

    def sampled(
        self, parent: SpanContext | None, trace_id: int, name: str, kind: SpanKind
    ) -> bool: ...

    def ended(self, span: ChainSpan) -> None: ...


_sink: SpanSink | None = None


def set_sink(sink: SpanSink | None) -> None:
    """Where spans that end from now on go; None drops them."""
    global _sink
    _sink = sink


class ChainSpan(trace.Span):
    """One span. `with` makes it current; without it, whoever made it calls `end`."""

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes | None,
        links: Sequence[SpanContext],
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.links = links
        self.attributes: dict[str, AttributeValue] = dict(attributes) if attributes else {}
        self.events: list[tuple[str, int, Attributes]] = []
        self.fault: str | None = None
        self.start_ns = time.time_ns()
        self.end_ns = 0
        self._began_s = time.perf_counter()
        self._before: otel_context.Context | None = None
        self._within: otel_context.Context | None = None

    # --- as a context manager ---

    def __enter__(self) -> Self:
        self._before = otel_context.get_current()
        self._within = trace.set_span_in_context(self, self._before)
        otel_context.attach(self._within)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # By value, not by token: a token is refused outside of the context that it came from, and
        # an abandoned async generator is closed in any. Elsewhere there is nothing to restore.
        if self._before is not None and otel_context.get_current() is self._within:
            otel_context.attach(self._before)
        self._before = self._within = None
        if error is not None:
            self.record_error(error)
        self.end()

    # --- what it says ---

    @property
    def traceparent(self) -> str:
        """The W3C header that makes something elsewhere this span's child."""
        return format_traceparent(self.context)

    @property
    def duration_s(self) -> float:
        return time.perf_counter() - self._began_s

    def is_recording(self) -> bool:
        return _sink is not None and not self.end_ns and self.context.trace_flags.sampled

    def get_span_context(self) -> SpanContext:
        return self.context

    def set(self, key: str, value: AttributeValue) -> None:
        """Sets one attribute; free when nothing is exported."""
        if self.is_recording():
            self.attributes[key] = value

    def record_error(self, error: BaseException) -> None:
        """Notes what went wrong, by its reason or class, never by its text."""
        if isinstance(error, FactoryChainError):
            self.set("error.type", error.reason)
            if error.code not in _NOT_A_FAULT:
                self.fault = error.reason
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.set("error.type", "cancelled")
        else:
            self.fault = type(error).__name__
            self.set("error.type", self.fault)

    def end(self, end_time: int | None = None) -> None:
        """Ends it; the second time does nothing."""
        if self.end_ns:
            return
        recording = self.is_recording()
        # The monotonic clock: a step of the wall clock must not make a negative duration.
        self.end_ns = end_time or self.start_ns + int(self.duration_s * 1e9)
        if recording and _sink is not None:
            _sink.ended(self)

    # --- what libraries call on the current span ---

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self.set(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        if self.is_recording():
            self.attributes.update(attributes)

    def add_event(
        self, name: str, attributes: Attributes | None = None, timestamp: int | None = None
    ) -> None:
        if self.is_recording() and len(self.events) < 128:
            self.events.append((name, timestamp or time.time_ns(), attributes or {}))

    def update_name(self, name: str) -> None:
        self.name = name

    def set_status(
        self, status: trace.Status | trace.StatusCode, description: str | None = None
    ) -> None:
        code = status.status_code if isinstance(status, trace.Status) else status
        self.fault = (self.fault or "ERROR") if code is trace.StatusCode.ERROR else None

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        kept = {**(attributes or {}), "exception.type": type(exception).__qualname__}
        self.add_event("exception", kept, timestamp)


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    attributes: Attributes | None = None,
    links: Iterable[str] = (),
) -> ChainSpan:
    """A span, begun now.

    `parent` is a traceparent: None takes the current span, an empty or unreadable one begins a new
    trace (what arrives on a stream that many runs share names its parent in each message, and
    whatever is current there belongs to nobody in particular).
    """
    above = _current_context() if parent is None else parse_traceparent(parent)
    trace_id = above.trace_id if above else random.getrandbits(128) or 1
    context = SpanContext(
        trace_id, random.getrandbits(64) or 1, False, _flags(above, trace_id, name, kind)
    )
    linked = [found for link in links if (found := parse_traceparent(link)) is not None]
    return ChainSpan(name, context, above, kind, attributes, linked)


def _flags(above: SpanContext | None, trace_id: int, name: str, kind: SpanKind) -> TraceFlags:
    if _sink is not None:
        return _SAMPLED if _sink.sampled(above, trace_id, name, kind) else _UNSAMPLED
    # Without an exporter the decision is left as it came; a new trace may be recorded further on.
    return above.trace_flags if above is not None else _SAMPLED


def _current_context() -> SpanContext | None:
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def current_traceparent() -> str:
    """The current span's traceparent; empty if there is none."""
    context = _current_context()
    return format_traceparent(context) if context is not None else ""


def current_trace_id() -> str:
    """The current trace's id, 32 hex digits; empty if there is none."""
    context = _current_context()
    return f"{context.trace_id:032x}" if context is not None else ""


def format_traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parse_traceparent(value: str) -> SpanContext | None:
    """The span that a W3C traceparent names; None if it names none (W3C Trace Context 3.2)."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, True, _SAMPLED if flags & 1 else _UNSAMPLED)


def extract(metadata: Mapping[str, str] | Iterable[tuple[str, str | bytes]] | None) -> str:
    """The traceparent in a carrier; empty if there is none. For `span(parent=…)`."""
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata or ()
    for key, value in pairs:
        if key == TRACEPARENT:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""


def inject(carrier: MutableMapping[str, str]) -> None:
    """Writes the current traceparent into a carrier (NATS headers, metadata); nothing if none."""
    traceparent = current_traceparent()
    if traceparent:
        carrier[TRACEPARENT] = traceparent
