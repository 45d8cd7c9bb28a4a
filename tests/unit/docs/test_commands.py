"""Commands in the documents exist: targets of the Makefile, commands and options of `factorychain`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_group

from factorychain._core.settings import PREFIX, all_settings
from factorychain.cli.app import app
from tests.unit.docs.documents import DOCUMENTS, ROOT, blocks, name_of

_TARGET = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)
_INLINE = re.compile(r"`((?:make|factorychain) [a-z][^`\n]*)`")
_VARIABLE = re.compile(rf"\b{PREFIX}[A-Z][A-Z0-9_]*[A-Z0-9]\b")
# Names with which an operator talks to the command itself.
# What is no setting of a service: the token of the command line, and what tests are told.
_OTHERS = {f"{PREFIX}{each}" for each in ("TOKEN", "CANCELS_RUNS", "CANCELS_SEED", "LOAD")}

TARGETS = set(_TARGET.findall((ROOT / "Makefile").read_text("utf-8")))


def _cli() -> TyperGroup:
    return get_group(app)


def _problem(line: str) -> str | None:
    """What is wrong with a command line; None if it is one of ours and exists, or is not ours."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if not words:
        return None
    if words[0] == "make":
        targets = [each for each in words[1:] if "=" not in each]
        missing = [each for each in targets if each not in TARGETS]
        return f"no target {missing}" if missing else _arguments_problem(words)
    if Path(words[0]).name == "factorychain":
        return _command_problem(words[1:])
    return None


def _arguments_problem(words: list[str]) -> str | None:
    """`make up ARGS="…"` hands its options to `factorychain up`."""
    if words[1] not in _cli().commands:
        return None
    given = [each.removeprefix("ARGS=") for each in words if each.startswith("ARGS=")]
    return _command_problem([words[1], *shlex.split(" ".join(given))])


def _command_problem(words: list[str]) -> str | None:
    if words[0].startswith("-"):
        return None
    command = _cli().commands.get(words[0])
    if command is None:
        return f"no command {words[0]}"
    known = {option for each in command.params for option in each.opts} | {"--help"}
    unknown = [each for each in words[1:] if each.startswith("--") and each not in known]
    return f"{words[0]} has no option {unknown}" if unknown else None


def _lines(path: Path) -> list[str]:
    shown = [
        line.strip().removeprefix("$ ")
        for block in blocks("console", "sh", "bash")
        if block.path == path
        for line in block.text.splitlines()
    ]
    return [*shown, *_INLINE.findall(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_and_options_exist(path: Path) -> None:
    problems = {line: _problem(line) for line in _lines(path)}
    assert {line: each for line, each in problems.items() if each} == {}


@pytest.mark.parametrize(
    "line",
    [
        "make dinner",
        ".venv/bin/factorychain dance",
        "factorychain run --usr alice hello",
        'make up ARGS="--agent counter"',
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert _problem(line)


def test_the_readme_shows_the_two_commands() -> None:
    assert {"make demo", "make up"} <= {
        line.split("#")[0].strip() for line in _lines(ROOT / "README.md")
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_variables_that_are_named_exist(path: Path) -> None:
    known = {doc.variable for doc in all_settings()} | _OTHERS
    assert set(_VARIABLE.findall(path.read_text("utf-8"))) <= known
