"""The time that one run spent in each layer, from the spans that the layers exported."""

from __future__ import annotations

import asyncio

from rich.rule import Rule
from rich.table import Table

from factorychain.cli.output import out
from factorychain.client import Event
from factorychain.local.trace_sink import ExportedSpan, TraceSink

LAYERS = ("bridge", "engine", "agents", "emitter")
_WAIT_S = 10.0
_POLL_S = 0.1


async def show_timings(sink: TraceSink, ending: Event) -> bool:
    """Prints the table; False if some layer exported nothing of the run."""
    trace_id = ending.trace.split("-")[1] if ending.trace.count("-") == 3 else ""
    spans = await _spans(sink, trace_id)
    out.print(Rule("The time of Alice's first run, by layer"))
    table = Table(pad_edge=False)
    for column in ("layer", "span", "from", "took"):
        table.add_column(column, justify="right" if column in ("from", "took") else "left")
    begin_ns = min((span.start_ns for span in spans), default=0)
    for layer in LAYERS:
        for span in (each for each in spans if each.service == f"factorychain-{layer}"):
            since_ms = (span.start_ns - begin_ns) / 1e6
            table.add_row(layer, span.name, f"{since_ms:.2f} ms", f"{span.duration_ms:.2f} ms")
    out.print(_by_layer(spans))
    out.print(table)
    out.print(f"trace id [bold]{trace_id}[/]   run {ending.run}")
    missing = [layer for layer in LAYERS if layer not in _layers(spans)]
    if missing:
        out.print(f" [bold red]✗[/] no span came from {', '.join(missing)}")
    return not missing


def _by_layer(spans: list[ExportedSpan]) -> Table:
    table = Table(pad_edge=False, title="own time: without what a layer waited for in another span")
    for column in ("layer", "spans", "own time"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in LAYERS:
        own = [each for each in spans if each.service == f"factorychain-{layer}"]
        own_ms = sum(_own_ms(each, spans) for each in own)
        table.add_row(layer, str(len(own)), f"{own_ms:.2f} ms")
    return table


def _own_ms(span: ExportedSpan, spans: list[ExportedSpan]) -> float:
    """The span's duration without the parts that its children cover."""
    covered_ns, reached = 0, span.start_ns
    for child in spans:  # by start time
        if child.parent_span_id == span.span_id:
            begin, end = max(child.start_ns, reached), min(child.end_ns, span.end_ns)
            covered_ns += max(0, end - begin)
            reached = max(reached, end)
    return (span.end_ns - span.start_ns - covered_ns) / 1e6


def _layers(spans: list[ExportedSpan]) -> set[str]:
    return {span.service.removeprefix("factorychain-") for span in spans}


async def _spans(sink: TraceSink, trace_id: str) -> list[ExportedSpan]:
    """The run's spans, once every layer has exported some, or what came within 10 s."""
    for _ in range(int(_WAIT_S / _POLL_S)):
        if _layers(sink.of_trace(trace_id)).issuperset(LAYERS):
            break
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(0.5)  # what the layers export last
    return sink.of_trace(trace_id)
