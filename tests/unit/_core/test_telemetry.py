"""What is exported, when the environment asks for it and only then."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from factorychain._core import otlp, telemetry
from factorychain._core.telemetry import counter, histogram, span

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({}, False, False),
        (ENDPOINT, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False, False),
    ],
)
def test_the_standard_variables_decide(
    environ: dict[str, str], traces: bool, metrics: bool
) -> None:
    assert telemetry.wants("traces", environ) is traces
    assert telemetry.wants("metrics", environ) is metrics


async def test_without_them_nothing_is_opened_and_no_thread_started() -> None:
    threads = threading.active_count()
    component = telemetry.setup("engine", "1", {})
    await component.start()
    assert not component.exporting
    assert threading.active_count() == threads
    await component.stop()


@pytest.mark.parametrize(
    ("environ", "module"),
    [
        (ENDPOINT, "grpc.trace_exporter"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http.trace_exporter"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http.trace_exporter"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "grpc.trace_exporter"),
    ],
)
def test_the_protocol_chooses_the_exporter(environ: dict[str, str], module: str) -> None:
    assert otlp.exporter_module("trace", environ).endswith(module)


def test_a_protocol_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'"):
        otlp.exporter_module("trace", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


def test_spans_are_exported_as_the_layer_with_parent_and_attributes() -> None:
    memory = InMemorySpanExporter()
    pipeline = otlp.TracePipeline(otlp.resource("engine", "1.2"), {}, lambda: memory)
    pipeline.open()
    with span("outer", attributes={"k": 1}), span("inner") as inner:
        inner.add_event("happened", {"n": 1})
    # Closing exports what was accepted.
    pipeline.close(1)
    seen_inner, seen_outer = memory.get_finished_spans()
    assert seen_outer.resource.attributes["service.name"] == "factorychain-engine"
    assert seen_outer.resource.attributes["service.version"] == "1.2"
    assert seen_inner.parent is not None
    assert seen_inner.parent.span_id == seen_outer.context.span_id
    assert seen_outer.attributes == {"k": 1}
    assert [each.name for each in seen_inner.events] == ["happened"]


class StuckExporter(SpanExporter):
    """Takes one batch and does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.exported = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.let_go.wait(10)
        self.exported += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def ended(name: str) -> ReadableSpan:
    with span(name) as made:
        pass
    return ReadableSpan(name=name, context=made.context)


def test_spans_that_do_not_fit_are_dropped_and_counted_and_the_rest_exported() -> None:
    stuck = StuckExporter()
    processor = otlp.CountingProcessor(stuck, max_queue_spans=4)
    before = otlp._dropped.sum()
    for number in range(4):
        processor.on_end(ended(f"s{number}"))
    assert stuck.entered.wait(10)
    for number in range(3):
        processor.on_end(ended(f"late{number}"))
    assert otlp._dropped.sum() - before == 3
    stuck.let_go.set()
    processor.shutdown()
    assert stuck.exported == 4


class KeptMetrics(MetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, object] = {}

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                self.found.update({each.name: each.data for each in scope.metrics})
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None: ...

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True


def test_closing_exports_the_last_numbers_of_every_instrument() -> None:
    kept = KeptMetrics()
    pipeline = otlp.MetricPipeline(otlp.resource("engine", "1"), {}, lambda: kept)
    before = histogram("test.before", "made before the export opened")
    pipeline.open()
    counter("test.counted", "Counted").add(3, {"kind": "a"})
    before.record(0.5)
    pipeline.close(1)
    assert {"test.counted", "test.before"} <= set(kept.found)
    assert "value=3" in repr(kept.found["test.counted"])
    assert "count=1" in repr(kept.found["test.before"])
