"""The command's parts, put together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from factorychain.cli import agents, config, respond, run, status, token, up
from factorychain.cli.demo import command as demo
from factorychain.cli.new import command as new
from factorychain.cli.output import out

app = typer.Typer(
    name="factorychain",
    help="Real-time AI chat for many users at once, each run in a place of its own.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals can hold tokens
)
for command in (
    new.new,
    up.up,
    run.run,
    respond.respond,
    agents.agents,
    status.status,
    token.token,
    config.config,
    demo.demo,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        out.print(f"factorychain {version('factorychain')}")
    except PackageNotFoundError:
        out.print("factorychain (not installed)")
    raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Real-time AI chat for many users at once, each run in a place of its own."""


def main() -> None:
    """Entry point of the `factorychain` script."""
    app()
