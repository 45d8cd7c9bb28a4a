"""Finding agents."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from factorychain.errors import AgentDependencyMissing, AgentNotFound
from factorychain_agents.registry import AgentRegistry, AgentsUnusable, load

SOURCE = '''
from factorychain import Agent, RunContext, tool

class Nothing: ...

class First(Agent):
    """The first."""
    @tool
    async def look(self, where: str) -> str:
        """Looks."""
        return where
    async def run(self, ctx: RunContext, text: str) -> str: ...

class Second(Agent):
    def __init__(self, nothing: Nothing) -> None: ...
    async def run(self, ctx: RunContext, text: str) -> str: ...

class Base(Agent):
    """Has no run: not an agent yet."""

graph = object()
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.startswith("fc_test_")]:
        monkeypatch.delitem(sys.modules, name)
    # What is installed here must not matter.
    monkeypatch.setattr(metadata, "entry_points", lambda group: ())
    return tmp_path


def write(folder: Path, name: str, text: str = SOURCE) -> str:
    (folder / f"{name}.py").write_text(text)
    return name


def test_all_agents_of_a_module_in_the_current_folder_and_the_built_in_ones(folder: Path) -> None:
    found = load([write(folder, "fc_test_all")])
    assert [each.name for each in found] == ["first", "second", "researcher", "assistant"]


def test_one_agent_by_name(folder: Path) -> None:
    found = load([write(folder, "fc_test_one") + ":Second"])
    assert [each.name for each in found] == ["second", "researcher", "assistant"]


def test_a_package_that_shows_agents_of_its_modules(folder: Path) -> None:
    package = folder / "fc_test_package"
    package.mkdir()
    (package / "inner.py").write_text(SOURCE)
    (package / "__init__.py").write_text("from fc_test_package.inner import First\n")
    assert [each.name for each in load(["fc_test_package"])] == ["first", "researcher", "assistant"]


def test_a_researcher_of_ones_own_replaces_the_built_in_one(folder: Path) -> None:
    text = SOURCE.replace("class First(Agent):", "class First(Agent):\n    name = 'researcher'")
    found = load([write(folder, "fc_test_own", text) + ":First"])
    assert [each.cls.__module__ for each in found if each.name == "researcher"] == ["fc_test_own"]


@pytest.mark.parametrize(
    ("named", "text", "says"),
    [
        ("fc_test_none", None, "there is no module 'fc_test_none'"),
        ("fc_test_bad", "1 / 0", "ZeroDivisionError"),
        ("fc_test_deep", "import fc_test_nowhere", "fc_test_nowhere"),
        ("fc_test_empty", "", "has no agent"),
        ("fc_test_name:Third", SOURCE, "has nothing of this name"),
        ("fc_test_graph:graph", SOURCE, "no object that an adapter serves"),
        ("fc_test_base:Base", SOURCE, "needs a method"),
    ],
)
def test_what_cannot_be_loaded_is_said_with_its_reason(
    folder: Path, named: str, text: str | None, says: str
) -> None:
    if text is not None:
        write(folder, named.partition(":")[0], text)
    with pytest.raises(AgentsUnusable, match=says):
        load([named])


def test_two_agents_of_one_name_are_refused(folder: Path) -> None:
    modules = [write(folder, "fc_test_a"), write(folder, "fc_test_b")]
    with pytest.raises(AgentsUnusable, match="called 'first' too"):
        load(modules)


async def test_what_misses_something_is_listed_and_cannot_be_found(folder: Path) -> None:
    agents = AgentRegistry(load([write(folder, "fc_test_list")])[:2])
    await agents.start()
    infos = {each.name: each for each in agents.infos()}
    assert infos["first"].available
    assert infos["first"].description == "The first."
    assert [each.name for each in infos["first"].tools] == ["look"]
    assert '"where"' in infos["first"].tools[0].input_schema_json
    assert list(infos["second"].missing) == ["fc_test_list.Nothing"]
    assert agents.find("first").definition.name == "first"
    with pytest.raises(AgentDependencyMissing):
        agents.find("second")
    with pytest.raises(AgentNotFound, match="there are: first, second"):
        agents.find("third")
    await agents.stop()
