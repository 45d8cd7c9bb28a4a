"""Telemetry of a service: traces, metrics, and where they go.

Nothing is exported, and nothing opened, unless the standard `OTEL_*` variables ask for it; ids and
numbers exist all the same. This is the module that others import; spans are in `tracing`,
instruments in `metrics`, exporters in `otlp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from opentelemetry.trace import SpanKind

from factorychain._core.logging import get_logger
from factorychain._core.metrics import (
    Counter,
    Histogram,
    counter,
    histogram,
    record_creation,
    up_down_counter,
)
from factorychain._core.tracing import (
    TRACEPARENT,
    ChainSpan,
    current_traceparent,
    extract,
    inject,
    parse_traceparent,
    span,
)

__all__ = [
    "TRACEPARENT",
    "ChainSpan",
    "Counter",
    "Histogram",
    "SpanKind",
    "Telemetry",
    "counter",
    "current_traceparent",
    "extract",
    "histogram",
    "inject",
    "parse_traceparent",
    "record_creation",
    "setup",
    "span",
    "up_down_counter",
    "wants",
]

log = get_logger(__name__)


def wants(signal: str, environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for OTLP export of a signal (traces, metrics)."""
    name = signal.upper()
    exporter = environ.get(f"OTEL_{name}_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT")
    return exporter == "otlp" or any(environ.get(each) for each in endpoints)


class Pipeline(Protocol):
    """What exports one signal. Both calls may block: they run in a thread."""

    def open(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...


class Telemetry:
    """The component that exports; the last to stop, so that a drain is still seen."""

    name = "telemetry"

    def __init__(self, pipelines: list[Pipeline], flush_timeout_s: float = 3.0) -> None:
        self._pipelines = pipelines
        self._flush_timeout_s = flush_timeout_s
        self._open: list[Pipeline] = []

    @property
    def healthy(self) -> bool:
        """Always: a collector that is away must not take the chain down."""
        return True

    @property
    def exporting(self) -> bool:
        return bool(self._open)

    async def start(self) -> None:
        for each in self._pipelines:
            await asyncio.to_thread(each.open)
            self._open.append(each)

    async def stop(self) -> None:
        while self._open:
            each = self._open.pop()
            try:
                async with asyncio.timeout(self._flush_timeout_s + 0.5):
                    await _in_daemon(partial(each.close, self._flush_timeout_s))
            except TimeoutError:
                log.warning("the last telemetry was not exported in time")


async def _in_daemon(work: Callable[[], None]) -> None:
    """Runs blocking work in a thread that the process does not wait for when it ends: a collector
    that accepts and never answers must not hold that up.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - handed to who waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name="telemetry-close", daemon=True).start()
    await done


def setup(service: str, version: str, environ: Mapping[str, str] | None = None) -> Telemetry:
    """The telemetry of a service; exports as `factorychain-<service>` if the environment asks."""
    variables = os.environ if environ is None else environ
    pipelines: list[Pipeline] = []
    if wants("traces", variables) or wants("metrics", variables):
        # Only here: the SDK and its exporters start threads and cost 100 ms of imports.
        from factorychain._core import otlp

        resource = otlp.resource(service, version)
        if wants("traces", variables):
            pipelines.append(otlp.TracePipeline(resource, variables))
        if wants("metrics", variables):
            pipelines.append(otlp.MetricPipeline(resource, variables))
    return Telemetry(pipelines)
