"""A small OTLP collector that keeps the spans of recent traces in memory.

`factorychain demo` and the tests start it to look at real exported spans; it is no replacement for a
trace store. Bounded: beyond `max_spans` the oldest are forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_service_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class ExportedEvent:
    """Something that happened during a span."""

    name: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class ExportedSpan:
    """One span as it was exported; times in Unix nanoseconds, ids in lower-case hex."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str] = field(default_factory=dict)
    status: str = ""
    """The message of its status."""
    events: tuple[ExportedEvent, ...] = ()
    links: tuple[dict[str, str], ...] = ()
    """Attributes of each link."""

    @property
    def duration_ms(self) -> float:
        """How long the span lasted, in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6


class TraceSink(trace_service_grpc.TraceServiceServicer):
    """An OTLP/gRPC trace collector on a loopback port."""

    def __init__(self, *, max_spans: int = 100_000) -> None:
        self.spans: deque[ExportedSpan] = deque(maxlen=max_spans)
        self._server: grpc.aio.Server | None = None
        self.endpoint = ""

    async def start(self) -> None:
        """Binds a free port; `endpoint` is then the value for OTEL_EXPORTER_OTLP_ENDPOINT."""
        self._server = grpc.aio.server()
        trace_service_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Stops serving; what was collected stays."""
        if self._server is not None:
            await self._server.stop(1.0)

    async def Export(  # noqa: N802 - the name that OTLP gives it
        self,
        request: trace_service.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext[
            trace_service.ExportTraceServiceRequest, trace_service.ExportTraceServiceResponse
        ],
    ) -> trace_service.ExportTraceServiceResponse:
        """Takes a batch of spans."""
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans.extend(_exported(service, span) for span in scope.spans)
        return trace_service.ExportTraceServiceResponse()

    def of_trace(self, trace_id: str) -> list[ExportedSpan]:
        """The spans of one trace, by start time."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: (span.start_ns, -span.end_ns))


def _exported(service: str, span: Span) -> ExportedSpan:
    events = (ExportedEvent(each.name, _attributes(each.attributes)) for each in span.events)
    return ExportedSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        status=span.status.message,
        events=tuple(events),
        links=tuple(_attributes(each.attributes) for each in span.links),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))
