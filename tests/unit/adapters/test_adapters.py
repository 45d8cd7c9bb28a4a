"""Finding agents among objects of other libraries."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from factorychain.adapters import Adapted, adapt, agent_class, install_hint, offered
from factorychain.agent import Agent
from factorychain.errors import AgentNotFound
from factorychain_agents.registry import AgentRegistry, AgentsUnusable, load

GRAPHS = """
from langgraph.graph import START, MessagesState, StateGraph
from factorychain import Agent, RunContext
from factorychain.adapters.langgraph import agent

def answer(state):
    return {"messages": [("ai", "yes")]}

builder = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
graph = builder.compile()
Other_Graph = builder.compile()
_hidden = builder.compile()
chosen = agent(builder.compile(), name="clerk", description="Answers letters.", network_ports=[443])

class Plain(Agent):
    async def run(self, ctx: RunContext, text: str) -> str: ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(metadata, "entry_points", lambda group: ())
    monkeypatch.delitem(sys.modules, "fc_test_graphs", raising=False)
    (tmp_path / "fc_test_graphs.py").write_text(GRAPHS)
    return "fc_test_graphs"


def test_a_module_offers_its_graphs_and_what_was_made_of_graphs(module: str) -> None:
    found = {each.name: each.cls.__qualname__ for each in load([module])}
    del found["researcher"], found["assistant"]
    assert found == {
        "plain": "Plain",
        "clerk": "chosen",
        "graph": "graph",
        "other_graph": "Other_Graph",
    }


def test_one_graph_by_name_also_when_it_is_named_twice(module: str) -> None:
    found = load([f"{module}:graph", f"{module}:graph", f"{module}:_hidden"])
    assert [each.name for each in found] == ["graph", "hidden", "researcher", "assistant"]


def test_choices_are_the_class_s_own(module: str) -> None:
    chosen = load([f"{module}:chosen"])[0]
    assert (chosen.name, chosen.description) == ("clerk", "Answers letters.")
    assert chosen.needs.network_ports == (443,)


def test_a_builder_is_told_to_be_compiled(module: str) -> None:
    with pytest.raises(AgentsUnusable, match=r"builder.*compile\(\)"):
        load([f"{module}:builder"])


async def test_only_what_was_named_can_be_started(module: str) -> None:
    registry = AgentRegistry(load([f"{module}:graph"]))
    await registry.start()
    assert registry.find("graph").definition.cls.__module__ == module
    with pytest.raises(AgentNotFound):
        registry.find("other_graph")
    await registry.stop()


def test_a_graph_that_was_wrapped_is_not_offered_bare(module: str) -> None:
    loaded = load([module])[0]
    source = sys.modules[loaded.cls.__module__]
    wrapped = types.ModuleType("fc_test_wrapped")
    wrapped.graph = source.graph  # type: ignore[attr-defined]
    wrapped.named = adapt(source.graph, "named")  # type: ignore[attr-defined]
    assert [each.__qualname__ for each in offered(wrapped)] == ["named"]


def test_other_objects_are_no_agents() -> None:
    assert adapt(object(), "x") is None
    assert agent_class("text", "m", "x") is None
    assert agent_class(dict, "m", "x") is None
    assert offered(types.ModuleType("empty")) == []


def test_an_agent_s_class_keeps_its_place() -> None:
    class Own(Agent):
        async def run(self, ctx: object) -> None: ...

    assert agent_class(Own, "elsewhere", "x") is Own
    assert Own.__module__ == __name__
    assert not issubclass(Own, Adapted)


@pytest.mark.parametrize(
    ("library", "extra"), [("langgraph", "langgraph"), ("pydantic_ai", "pydantic-ai")]
)
def test_what_to_install_for_a_missing_library(library: str, extra: str) -> None:
    hint = f"pip install 'factorychain[{extra}]'"
    assert install_hint(library) == hint
    assert install_hint("json") == ""
    without = f"import sys; sys.modules['{library}'] = None\n"
    asks = f"import factorychain.adapters.{library}"
    done = subprocess.run(
        [sys.executable, "-c", without + asks], check=False, capture_output=True, text=True
    )
    assert "MissingLibrary" in done.stderr
    assert hint in done.stderr


def test_a_module_whose_library_is_missing_says_what_to_install(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fc_test_graphs.py").write_text("import langgraph")
    monkeypatch.setitem(sys.modules, "langgraph", None)
    with pytest.raises(AgentsUnusable, match=r"pip install 'factorychain\[langgraph\]'"):
        load([module])


def test_looking_at_objects_imports_no_library() -> None:
    asks = (
        "import sys; from factorychain.adapters import adapt; adapt(object(), 'x');"
        "print(sorted({'langgraph', 'langchain_core', 'pydantic_ai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", asks], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
