"""`factorychain config`: every variable, and whether the environment's values are good."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from factorychain._core.settings import (
    PREFIX,
    AgentsSettings,
    BridgeSettings,
    EmitterSettings,
    EngineSettings,
    SettingDoc,
    all_settings,
    settings_problem,
)
from factorychain.cli.output import fail, out

# Read by the command itself.
_OTHERS = {f"{PREFIX}TOKEN"}


def config(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the environment's values are good.")
    ] = False,
) -> None:
    """List every variable with its meaning, unit, bounds, default and who reads it."""
    documented = all_settings()
    problems = _problems(documented)
    if check:
        if problems:
            fail("\n".join(problems), "factorychain config   lists every variable")
        out.print("The configuration is good.")
        return
    out.print(_table(documented))
    for problem in problems:
        out.print(f"[bold red]wrong now:[/] {problem}")


def _problems(documented: list[SettingDoc]) -> list[str]:
    known = {doc.variable for doc in documented} | _OTHERS
    found = [
        f"{name}: no such variable; the chain would ignore it"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]
    for settings in (EngineSettings, AgentsSettings, EmitterSettings, BridgeSettings):
        try:
            settings()
        except ValidationError as error:
            found += [each for each in settings_problem(error).splitlines() if each not in found]
    return found


def _table(documented: list[SettingDoc]) -> Table:
    table = Table(title="Variables of the chain", show_lines=False, pad_edge=False)
    table.add_column("variable", no_wrap=True, style="bold")
    for column in ("meaning", "unit", "bounds", "default", "read by"):
        table.add_column(column, overflow="fold")
    for doc in documented:
        meaning = doc.meaning if doc.type in ("text", "path") else f"{doc.meaning} ({doc.type})"
        everywhere = len(doc.services) == 4
        table.add_row(
            doc.variable,
            meaning,
            doc.unit,
            doc.bounds,
            doc.default or "—",
            "all" if everywhere else ", ".join(doc.services),
        )
    return table
