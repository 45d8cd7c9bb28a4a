"""How the command speaks: results to stdout, everything else to stderr, failures in one shape.

A failure says what is wrong and how to mend it, and has an exit status of its own: 1 for a run that
failed or was cancelled, 2 for what was refused or could not be done.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

FAILED = 1
REFUSED = 2

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def command_line() -> str:
    """How this command was reached, so that what it tells people to type works for them."""
    if shutil.which("factorychain"):
        return "factorychain"
    reached = Path(sys.argv[0])
    if reached.name == "factorychain":
        return os.path.relpath(reached)
    return f"{os.path.relpath(sys.executable)} -m factorychain.cli"


def fail(problem: str, hint: str = "", *, status: int = REFUSED) -> NoReturn:
    """Says what went wrong and how to mend it, and ends the command."""
    err.print(Text.assemble(("error: ", "bold red"), problem))
    if hint:
        err.print(Text.assemble(("  try: ", "bold"), hint))
    raise typer.Exit(status)
