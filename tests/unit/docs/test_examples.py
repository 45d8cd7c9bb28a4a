"""Every Python example in the documents runs, and comes to what the document says."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

import factorychain.testing
from factorychain import Agent
from factorychain._instance.definition import define
from tests.unit.docs.documents import Block, blocks

EXAMPLES = list(blocks("python"))


@contextmanager
def _imported(block: Block) -> Iterator[ModuleType]:
    """The example as a module: an agent's providers are looked up in the module it is in."""
    module = ModuleType("documented_example")
    sys.modules[module.__name__] = module
    try:
        exec(compile(block.text, str(block), "exec", dont_inherit=True), module.__dict__)
        yield module
    finally:
        del sys.modules[module.__name__]


def _agents(module: ModuleType) -> list[type[Agent]]:
    found = [each for each in vars(module).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, Agent) and each is not Agent]


def test_there_are_examples_for_an_agents_author() -> None:
    documents = {each.path.name for each in EXAMPLES}
    assert {"README.md", "writing-agents.md", "protocol.md"} <= documents


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_every_example_says_how_it_is_checked(block: Block) -> None:
    assert block.example is not None, "put <!-- example: {…} --> above it"
    with _imported(block) as module:
        assert "agent" in block.example or "needs" in block.example or _asserts(block)
        assert all(define(each).name for each in _agents(module))


@pytest.mark.parametrize(
    "block", [each for each in EXAMPLES if "agent" in (each.example or {})], ids=str
)
def test_an_agent_in_an_example_answers_what_the_document_says(block: Block) -> None:
    assert block.example is not None
    with _imported(block) as module:
        result = factorychain.testing.run(
            getattr(module, block.example["agent"]),
            block.example["input"],
            answers=block.example.get("answers", ()),
        )
    assert result.ending.type == "agent_completed", result.ending
    assert result.output == block.example["output"]


def test_the_first_agent_shows_the_five_events_in_ten_lines() -> None:
    block = next(each for each in EXAMPLES if each.path.name == "README.md")
    assert len([line for line in block.text.splitlines() if line]) <= 10
    with _imported(block) as module:
        result = factorychain.testing.run(_agents(module)[0], "one two")
    assert [each.type for each in result.events] == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ]


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_uses_only_public_modules(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            importlib.import_module(node.module)
            names = [*node.module.split("."), *(each.name for each in node.names)]
            assert not [each for each in names if each.startswith("_")]


def _asserts(block: Block) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(block.text)))
