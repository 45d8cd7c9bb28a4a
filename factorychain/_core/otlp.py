"""OTLP export of traces and metrics, built from the standard `OTEL_*` variables.

Invariants: nothing here blocks the event loop; a span that does not fit is dropped and counted,
never silently; closing exports what was accepted.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from factorychain._core import tracing
from factorychain._core.metrics import REGISTRY, Counter, Histogram, Series, counter

QUEUE_SPANS = 16_384
BATCH_SPANS = 512
SCHEDULE_DELAY_MS = 500
METRICS_INTERVAL_MS = 10_000

_SCOPE = InstrumentationScope("factorychain")
_dropped = counter("factorychain.telemetry.spans_dropped", "Spans that found the export queue full")


def resource(service: str, version: str) -> Resource:
    """What every span and metric of this process says about where it comes from."""
    return Resource.create(
        {
            "service.name": f"factorychain-{service}",
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )


def exporter_module(signal: str, environ: Mapping[str, str]) -> str:
    """The module of the exporter for a signal (trace, metric), by the configured protocol.

    Without `OTEL_EXPORTER_OTLP_PROTOCOL`, port 4317 means gRPC, anything else HTTP, which is the
    specification's default (OpenTelemetry Protocol Exporter, "Specify Protocol").
    """
    plural = f"{signal.upper()}S"
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{plural}_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT", ""
    )
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{plural}_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", ""
    )
    if not protocol:
        protocol = "grpc" if endpoint.rstrip("/").endswith(":4317") else "http/protobuf"
    if protocol not in ("grpc", "http/protobuf"):
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; it can be grpc or http/protobuf"
        )
    kind = "grpc" if protocol == "grpc" else "http"
    return f"opentelemetry.exporter.otlp.proto.{kind}.{signal}_exporter"


class CountingProcessor(BatchSpanProcessor):
    """A batch processor that refuses and counts what does not fit, where the SDK's drops silently."""

    def __init__(self, exporter: SpanExporter, *, max_queue_spans: int = QUEUE_SPANS) -> None:
        self._max_queue_spans = max_queue_spans
        self._accepted = 0
        self._relay = _CountingExporter(exporter)
        super().__init__(
            self._relay,
            max_queue_size=max_queue_spans,
            schedule_delay_millis=SCHEDULE_DELAY_MS,
            max_export_batch_size=min(BATCH_SPANS, max_queue_spans),
        )

    def on_end(self, span: ReadableSpan) -> None:
        if self._accepted - self._relay.taken >= self._max_queue_spans:
            _dropped.add()
            return
        self._accepted += 1
        super().on_end(span)

    def give_up(self) -> None:
        """Ends an export that is being retried."""
        self._relay.shutdown()

    def shutdown(self) -> None:
        super().shutdown()  # type: ignore[no-untyped-call]  # the SDK's has no types


class _CountingExporter(SpanExporter):
    """Counts what left the queue, exported or not."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._shut = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            return self._inner.export(spans)
        finally:
            self.taken += len(spans)

    def shutdown(self) -> None:
        if not self._shut:
            self._shut = True
            self._inner.shutdown()


class TracePipeline:
    """Our spans and those of libraries, through one queue to one exporter."""

    def __init__(
        self,
        resource: Resource,
        environ: Mapping[str, str],
        exporter: Callable[[], SpanExporter] | None = None,
    ) -> None:
        self._resource = resource
        self._exporter = exporter or (lambda: _span_exporter(environ))
        self._processor: CountingProcessor | None = None
        self._provider: TracerProvider | None = None

    def open(self) -> None:
        provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        processor = CountingProcessor(self._exporter())
        provider.add_span_processor(processor)
        self._processor, self._provider = processor, provider
        # For libraries that make spans of their own.
        trace.set_tracer_provider(provider)
        tracing.set_sink(_Sink(provider, processor, self._resource))

    def close(self, timeout_s: float) -> None:
        tracing.set_sink(None)
        provider, processor = self._provider, self._processor
        self._provider = self._processor = None
        if provider is None or processor is None:
            return
        # A shutdown exports what is left and retries for half a minute; one of the exporter itself
        # ends its retries.
        give_up = threading.Timer(timeout_s, processor.give_up)
        give_up.daemon = True
        give_up.start()
        provider.shutdown()
        give_up.cancel()


def _span_exporter(environ: Mapping[str, str]) -> SpanExporter:
    module = importlib.import_module(exporter_module("trace", environ))
    return cast("SpanExporter", module.OTLPSpanExporter())


class _Sink:
    def __init__(
        self, provider: TracerProvider, processor: CountingProcessor, resource: Resource
    ) -> None:
        self._processor = processor
        self._resource = resource
        # The usual one (parent's decision, else yes) needs no call.
        self._sampler = None if provider.sampler is DEFAULT_ON else provider.sampler

    def sampled(self, parent: SpanContext | None, trace_id: int, name: str, kind: SpanKind) -> bool:
        if self._sampler is None:
            return parent is None or parent.trace_flags.sampled
        above = (
            None if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent))
        )
        decision = self._sampler.should_sample(above, trace_id, name, kind).decision
        return decision is Decision.RECORD_AND_SAMPLE

    def ended(self, span: tracing.ChainSpan) -> None:
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=span.context,
                parent=span.parent,
                resource=self._resource,
                attributes=span.attributes,
                events=[Event(name, attributes, at) for name, at, attributes in span.events],
                links=[Link(each) for each in span.links],
                kind=span.kind,
                status=Status(StatusCode.ERROR, span.fault) if span.fault else Status(),
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=_SCOPE,
            )
        )


class MetricPipeline:
    """Shows our instruments to the SDK: totals are read at export time, distributions handed on."""

    def __init__(
        self,
        resource: Resource,
        environ: Mapping[str, str],
        exporter: Callable[[], MetricExporter] | None = None,
    ) -> None:
        self._resource = resource
        self._environ = environ
        self._exporter = exporter or (lambda: _metric_exporter(environ))
        self._provider: MeterProvider | None = None
        self._meter: otel_metrics.Meter | None = None

    def open(self) -> None:
        configured = self._environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
        interval_ms = float(configured) if configured else METRICS_INTERVAL_MS
        reader = PeriodicExportingMetricReader(self._exporter(), export_interval_millis=interval_ms)
        self._provider = MeterProvider([reader], self._resource, shutdown_on_exit=False)
        self._meter = self._provider.get_meter("factorychain")
        REGISTRY.watch(self._show)

    def close(self, timeout_s: float) -> None:
        REGISTRY.watch(None)
        for each in REGISTRY:
            if isinstance(each, Histogram):
                each.forward_to(None)
        if self._provider is not None:
            self._provider.shutdown(timeout_s * 1000)
            self._provider = None

    def _show(self, instrument: Counter | Histogram) -> None:
        meter, about = self._meter, instrument.described
        if meter is None:
            return
        if isinstance(instrument, Histogram):
            ours = meter.create_histogram(
                about.name,
                about.unit,
                about.description,
                explicit_bucket_boundaries_advisory=instrument.bounds,
            )
            instrument.forward_to(lambda value, series: ours.record(value, dict(series)))
            return
        make = (
            meter.create_observable_counter
            if about.kind == "counter"
            else meter.create_observable_up_down_counter
        )
        make(
            about.name,
            [lambda options: _observe(instrument, options)],
            about.unit,
            about.description,
        )


def _observe(instrument: Counter, _options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(total.value, _plain(series)) for series, total in instrument.series()]


def _plain(series: Series) -> dict[str, str | bool | int | float]:
    return dict(series)


def _metric_exporter(environ: Mapping[str, str]) -> MetricExporter:
    module = importlib.import_module(exporter_module("metric", environ))
    return cast("MetricExporter", module.OTLPMetricExporter())
