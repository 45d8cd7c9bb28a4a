"""Collects the spans that end, in place of an exporter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.trace import SpanContext, SpanKind

from factorychain._core import tracing
from factorychain._core.tracing import ChainSpan


class SpanRecorder:
    """A sink of spans: everything is sampled that its parent did not exclude."""

    def __init__(self) -> None:
        self.ended_spans: list[ChainSpan] = []

    def sampled(self, parent: SpanContext | None, trace_id: int, name: str, kind: SpanKind) -> bool:
        return parent is None or parent.trace_flags.sampled

    def ended(self, span: ChainSpan) -> None:
        self.ended_spans.append(span)

    def named(self, suffix: str, kind: SpanKind | None = None) -> list[ChainSpan]:
        """Those whose name ends so."""
        return [
            each
            for each in self.ended_spans
            if each.name.endswith(suffix) and kind in (None, each.kind)
        ]


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    """Every span that ends in the test."""
    recorder = SpanRecorder()
    tracing.set_sink(recorder)
    yield recorder
    tracing.set_sink(None)
