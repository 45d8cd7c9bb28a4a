"""`factorychain config`: every variable, and whether the environment's values are good."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from factorychain._core.settings import SettingDoc, all_settings
from factorychain.cli import options
from factorychain.cli.output import fail, out

_ALL = 4


def config(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the environment's values are good.")
    ] = False,
) -> None:
    """List every variable with its meaning, unit, bounds, default and who reads it."""
    documented = all_settings()
    problems = options.unknown_variables() + options.environment_problems()
    if check:
        if problems:
            fail("\n".join(problems), "factorychain config   lists every variable")
        out.print("The configuration is good.")
        return
    for doc in documented:
        out.print(_entry(doc))
    for problem in problems:
        out.print(f"[bold red]wrong now:[/] {problem}")


def _entry(doc: SettingDoc) -> Text:
    """One variable in two lines."""
    facts = [
        f"default {doc.default}" if doc.default else "no default",
        f"{doc.type}{f' in {doc.unit}' if doc.unit else ''}",
        doc.bounds,
        "read by all" if len(doc.services) == _ALL else f"read by {', '.join(doc.services)}",
    ]
    return Text.assemble(
        (doc.variable, "bold"),
        f"\n    {doc.meaning}\n    ",
        ("  ·  ".join(fact for fact in facts if fact), "dim"),
    )
