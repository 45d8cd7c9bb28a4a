"""The tables of reasons in protocol.md name what the code gives, no more and no less.

Reasons stand in the code where they are given. What is found there is: the reason of an `Outcome`, of
errors that the library itself raises in a run, of what the emitter turns an ending into, and the engine's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from factorychain._instance import ending
from factorychain.errors import AgentError
from factorychain_engine.lifeline import EndReason
from factorychain_engine.queue.promoting import INPUT_LOST
from tests.unit.docs.documents import ROOT

_INSIDE = ("factorychain/_instance", "factorychain/_process", "factorychain/_mcp")
_ADAPTERS = "factorychain/adapters"
_SERVICES = (
    "services/agents/factorychain_agents",
    "services/emitter/factorychain_emitter",
)
_REASON = re.compile(r"[A-Z][A-Z_]+")
_FAILS = frozenset({"Outcome", "AgentError", "replace"})
_CODE = re.compile(r"`([A-Z][A-Z_]+)`")
# An author's own if it names none; the text beside the table says so.
_DEFAULTS = frozenset({"AGENT_ERROR", "TOOL_ERROR"})


def _documented(before: str) -> set[str]:
    """First column of the table that follows a sentence which begins so."""
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    _, _, rest = text.partition(f"\n{before}")
    table = rest.partition("\n\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {code for cell in cells for code in _CODE.findall(cell)}


def _calls(*folders: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in the modules, with the last name of what is called."""
    for path in (each for folder in folders for each in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func).rpartition(".")[2], node


def _texts(node: ast.expr | None) -> set[str]:
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    values = [each.value for each in parts if isinstance(each, ast.Constant)]
    return {each for each in values if isinstance(each, str) and _REASON.fullmatch(each)}


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((each.value for each in call.keywords if each.arg == name), None)


def _at(call: ast.Call, index: int) -> ast.expr | None:
    return call.args[index] if len(call.args) > index else None


def _assigned(path: str, name: str) -> set[str]:
    """What a local or a table of a module holds."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
                found |= {text for each in values for text in _texts(each)}
    return found


def _failed() -> set[str]:
    found = {*ending._FAILED_BECAUSE, *EndReason, INPUT_LOST} - ending.CANCELS
    found |= {each.default_reason for each in AgentError.__subclasses__()}
    found |= _assigned("factorychain/_process/instance.py", "reason")
    for called, call in _calls(*_INSIDE, *_SERVICES):
        if called in _FAILS:
            found |= _texts(_keyword(call, "reason"))
        elif called == "fail":
            found |= _texts(_at(call, 1))
    return {str(each) for each in found}


def _of_calls() -> set[str]:
    found: set[str] = set()
    for called, call in _calls(*_INSIDE, _ADAPTERS, *_SERVICES):
        if called == "ToolError":
            found |= _texts(_at(call, 1))
        elif called == "ToolFailure":
            found |= _texts(_keyword(call, "reason"))
        elif called == "fail" and isinstance(call.func, ast.Attribute):
            found |= _texts(_at(call, 0))
    found |= _assigned("factorychain/adapters/pydantic_ai/call_texts.py", "_REASONS")
    found |= _assigned("factorychain/adapters/pydantic_ai/call_texts.py", "_INTERRUPTED")
    return found | _explained()


def _explained() -> set[str]:
    """What `open_call` makes of what a call raised."""
    path = ROOT / "factorychain" / "_instance" / "open_call.py"
    returned = [
        node.value.elts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
    ]
    return {text for each in returned for text in _texts(each)}


def test_the_reasons_of_failed_runs_are_those_of_the_table() -> None:
    assert _documented("Reasons of `agent_failed`") == _failed() - _DEFAULTS


def test_the_reasons_of_failed_calls_are_those_of_the_table() -> None:
    assert _documented("Reasons of the `error` of `tool_completed`") == _of_calls() - _DEFAULTS


def test_the_reasons_of_cancelled_runs_are_those_of_the_text() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    (line,) = re.findall(r"^Reasons of `agent_cancelled`: (.*)$", text, re.MULTILINE)
    assert set(_CODE.findall(line)) == ending.CANCELS


@pytest.mark.parametrize("folder", [*_INSIDE, _ADAPTERS, *_SERVICES])
def test_what_is_looked_through_is_there(folder: str) -> None:
    assert next(Path(ROOT / folder).rglob("*.py"), None) is not None
