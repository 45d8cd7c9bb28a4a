"""The run's span for libraries in the agent's code."""

from __future__ import annotations

import contextvars

from opentelemetry import trace
from opentelemetry.propagate import inject

from factorychain._process.trace_context import enter_trace

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def headers_after(traceparent: str) -> dict[str, str]:
    found: dict[str, str] = {}

    def enter() -> None:
        enter_trace(traceparent)
        inject(found)

    contextvars.Context().run(enter)
    return found


def test_requests_of_libraries_carry_the_runs_trace() -> None:
    assert headers_after(TRACE) == {"traceparent": TRACE}
    assert not trace.get_current_span().get_span_context().is_valid


def test_without_a_trace_there_is_none() -> None:
    assert headers_after("") == {}
