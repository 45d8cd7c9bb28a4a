"""`factorychain config`: every variable, and whether the environment's values are good."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.text import Text

from factorychain._core.settings import PREFIX, SettingDoc, all_settings
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
    problems = _problems(documented)
    if check:
        if problems:
            fail("\n".join(problems), "factorychain config   lists every variable")
        out.print("The configuration is good.")
        return
    for doc in documented:
        out.print(_entry(doc))
    for problem in problems:
        out.print(f"[bold red]wrong now:[/] {problem}")


def _problems(documented: list[SettingDoc]) -> list[str]:
    known = {doc.variable for doc in documented}
    unknown = [
        f"{name}: no such variable; the chain would ignore it"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]
    return unknown + options.environment_problems()


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
