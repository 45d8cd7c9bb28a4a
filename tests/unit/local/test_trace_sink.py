"""What the collector keeps of a span: all that somebody could have said in one."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from factorychain.local.trace_sink import TraceSink

_WORDS = "words-of-a-user"
_TEXT = AnyValue(string_value=_WORDS)
_SAID = KeyValue(key="said", value=_TEXT)
_LIST = AnyValue(array_value=ArrayValue(values=[_TEXT]))
_FOLDED = AnyValue(kvlist_value=KeyValueList(values=[_SAID]))


@pytest.mark.parametrize(
    "span",
    [
        Span(name=_WORDS),
        Span(attributes=[_SAID]),
        Span(attributes=[KeyValue(key=_WORDS)]),
        Span(attributes=[KeyValue(key="list", value=_LIST)]),
        Span(attributes=[KeyValue(key="folded", value=_FOLDED)]),
        Span(status=Status(message=_WORDS)),
        Span(events=[Span.Event(name=_WORDS)]),
        Span(events=[Span.Event(name="exception", attributes=[_SAID])]),
        Span(links=[Span.Link(attributes=[_SAID])]),
    ],
)
async def test_what_is_said_anywhere_in_a_span_is_found_in_what_is_kept(span: Span) -> None:
    sink = TraceSink()
    service = KeyValue(key="service.name", value=AnyValue(string_value="engine"))
    spans = ResourceSpans(
        resource=Resource(attributes=[service]), scope_spans=[ScopeSpans(spans=[span])]
    )
    await sink.Export(ExportTraceServiceRequest(resource_spans=[spans]), Mock())
    (kept,) = sink.spans
    assert kept.service == "engine"
    assert _WORDS in str(kept)
