"""`factorychain new`: a folder with a first agent that runs, and its test."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from factorychain.cli.new.project_files import BadName, Project
from factorychain.cli.output import command_line, fail, out

_OLDEST = "0.1"


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the agent is called, such as my-agent.")
    ],
    into: Annotated[
        Path, typer.Option("--in", metavar="DIR", help="The folder to make its folder in.")
    ] = Path(),
) -> None:
    """Make the folder NAME with an agent that runs, a test, a README and requirements.

    Nothing is overwritten: a folder that is there already must be empty.
    """
    folder = into / name
    try:
        project = Project.named(name)
        written = _write(folder, project)
    except BadName as error:
        fail(str(error), "factorychain new my-agent")
    except OSError as error:
        fail(f"{folder} cannot be made: {error.strerror or error}")
    out.print(Text.assemble("made ", (str(folder), "bold"), f": {', '.join(written)}"))
    out.print("next:")
    for line in _next_commands(folder, project):
        out.print(Text(f"  {line}"))


def _write(folder: Path, project: Project) -> list[str]:
    if folder.is_dir() and any(folder.iterdir()):
        fail(
            f"{folder} is there already, and not empty", "another name, or another folder with --in"
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in project.files(_version()):
        with (folder / name).open("x", encoding="utf-8") as file:  # never over another one
            file.write(text)
        written.append(name)
    return written


def _next_commands(folder: Path, project: Project) -> list[str]:
    command, python = _from(folder, command_line()), _from(folder, sys.executable)
    return [
        f"cd {shlex.quote(str(folder))}",
        f"{command} up --agents {project.module} --reload",
        f'{command} run --user you --agent {project.name} "tea cake"    # in a second terminal',
        f"{python} -m pytest",
    ]


def _from(folder: Path, command: str) -> str:
    """The command as it is typed in the folder: its path may be one from here."""
    program, *rest = command.split(" ")
    if os.sep in program and not Path(program).is_absolute():
        program = os.path.relpath(program, folder)
    return " ".join([shlex.quote(program), *rest])


def _version() -> str:
    try:
        return ".".join(version("factorychain").split(".")[:2])
    except PackageNotFoundError:
        return _OLDEST
