"""The run's span for libraries that know OpenTelemetry's interfaces, if the agent's code has loaded them.

Nothing is exported from a run process: what libraries record there goes nowhere. But they hand the trace
on in the requests that they send.
"""

from __future__ import annotations

import sys


def enter_trace(traceparent: str) -> None:
    """Make the span that `traceparent` names the current one of this context, for good."""
    if "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import context, trace

    parts = traceparent.split("-")
    if len(parts) != 4:
        return
    span = trace.SpanContext(
        int(parts[1], 16),
        int(parts[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(parts[3], 16)),
    )
    context.attach(trace.set_span_in_context(trace.NonRecordingSpan(span)))
