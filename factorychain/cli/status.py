"""`factorychain status`: what of the chain serves."""

from __future__ import annotations

import asyncio

import typer
from rich.table import Table

from factorychain.cli import options
from factorychain.cli.output import FAILED, out
from factorychain.local.readiness import LAYERS, chain_ready


def status(data: options.Data = options.DATA_DEFAULT) -> None:
    """Show what serves, where, and in which processes. Exit status 1 if something does not."""
    _, state = options.running_chain(data)
    serving = asyncio.run(chain_ready(state))
    table = Table(pad_edge=False)
    for column in ("part", "serves", "address", "pid"):
        table.add_column(column)
    for name in ("edge", *LAYERS, "nats"):
        pids = state.pids.get("bridge" if name == "edge" else name, [])
        table.add_row(
            name,
            "[green]yes[/]" if serving[name] else "[bold red]no[/]",
            getattr(state, name),
            ", ".join(map(str, pids)),
        )
    out.print(table)
    if not all(serving.values()):
        raise typer.Exit(FAILED)
