"""What is kept of a graph's checkpoints, and what of it is enough to go on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from factorychain._instance.memory_values import MemoryValues
from factorychain.adapters.langgraph import agent
from factorychain.adapters.langgraph.checkpoints import ThreadSaver, blob_name

THREAD = "u.t"
CONFIG: RunnableConfig = {"configurable": {"thread_id": THREAD}}
CompiledGraph = CompiledStateGraph[Any, Any, Any, Any]


class Blobs:
    """A thread's values in memory."""

    def __init__(self) -> None:
        self.values = MemoryValues()

    async def load(self, name: str) -> tuple[bytes | None, int]:
        return self.values.load(name)

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        return self.values.store(name, value, revision)

    @property
    def size(self) -> int:
        return len(self.values.load(blob_name("a"))[0] or b"")


async def in_a_new_process(
    graph: CompiledGraph, given: object, blobs: Blobs, *, durability: Any = "exit"
) -> Any:
    """One run: everything that it knows of earlier ones is in the blobs."""
    choices = agent(graph, name="a").choices
    saver = ThreadSaver(blobs, "a", THREAD, choices.types)
    await saver.restore()
    own = graph.copy({"checkpointer": saver})
    result = await own.ainvoke(given, CONFIG, durability=durability)
    await saver.keep()
    return result


def extended(old: list[int] | None, changes: Sequence[list[int]]) -> list[int]:
    return [*(old or []), *(item for change in changes for item in change)]


class Adding(TypedDict):
    """A list that grows, in a channel that is stored by its changes."""

    items: Annotated[list[int], DeltaChannel(extended)]


class Counting(TypedDict):
    """A list that grows."""

    items: Annotated[list[int], operator.add]


def one_node(state: Any, node: Any) -> CompiledGraph:
    return StateGraph(state).add_node("n", node).add_edge(START, "n").compile()


@pytest.mark.parametrize("durability", ["exit", "sync", "async"])
@pytest.mark.parametrize("state", [Counting, Adding])
async def test_state_grows_over_processes(state: Any, durability: str) -> None:
    blobs = Blobs()
    graph = one_node(state, lambda state: {"items": [len(state["items"])]})
    for turn in range(5):
        result = await in_a_new_process(
            graph, {"items": [100 + turn]}, blobs, durability=durability
        )
    assert result["items"] == [100, 1, 101, 3, 102, 5, 103, 7, 104, 9]


async def test_what_is_stored_does_not_grow_with_the_number_of_runs() -> None:
    blobs, sizes = Blobs(), []
    state = {"messages": [{"role": "user", "content": "again", "id": "same"}]}
    fixed = one_node(
        MessagesState, lambda _: {"messages": [{"role": "ai", "content": "y", "id": "a"}]}
    )
    for _ in range(6):
        await in_a_new_process(fixed, state, blobs, durability="sync")
        sizes.append(blobs.size)
    assert sizes[-1] - sizes[1] < 64, sizes


def asking(key: str) -> Any:
    def node(state: Any) -> dict[str, list[Any]]:
        first = interrupt(f"{key} one")
        second = interrupt(f"{key} two")
        return {"items": [f"{key}: {first} {second}"]}

    return node


async def test_interrupts_of_subgraphs_go_on_in_other_processes() -> None:
    inner = StateGraph(Counting).add_node("ask", asking("deep")).add_edge(START, "ask").compile()
    middle = StateGraph(Counting).add_node("inner", inner).add_edge(START, "inner").compile()
    outer = StateGraph(Counting).add_node("middle", middle).add_node("side", asking("side"))
    outer.add_edge(START, "middle").add_edge(START, "side")
    graph, blobs = outer.compile(), Blobs()
    result = await in_a_new_process(graph, {"items": []}, blobs)
    waiting = {each.value: each.id for each in result["__interrupt__"]}
    assert set(waiting) == {"deep one", "side one"}
    one_answer: Command[Any] = Command(resume={waiting["deep one"]: "a"})
    result = await in_a_new_process(graph, one_answer, blobs)
    waiting = {each.value: each.id for each in result["__interrupt__"]}
    assert set(waiting) == {"deep two", "side one"}
    both = {waiting["deep two"]: "b", waiting["side one"]: "c"}
    result = await in_a_new_process(graph, Command(resume=both), blobs)
    (last,) = result["__interrupt__"]
    result = await in_a_new_process(graph, Command(resume={last.id: "d"}), blobs)
    assert sorted(result["items"]) == ["deep: a b", "side: c d"]
    before = blobs.size
    await in_a_new_process(graph, {"items": []}, blobs)
    assert blobs.size > before  # it waits again, with its subgraphs


async def test_a_subgraph_with_a_history_of_its_own_keeps_it() -> None:
    inner = StateGraph(Counting).add_node("n", lambda state: {"items": [len(state["items"])]})
    kept = inner.add_edge(START, "n").compile(checkpointer=True)

    async def call(state: MessagesState) -> dict[str, Any]:
        result = await kept.ainvoke({"items": [0]})
        return {"messages": [("ai", str(len(result["items"])))]}

    graph, blobs = one_node(MessagesState, call), Blobs()
    seen = []
    for _ in range(3):
        result = await in_a_new_process(graph, {"messages": [("user", "x")]}, blobs)
        seen.append(result["messages"][-1].text)
    assert seen == ["2", "4", "6"]


@dataclass
class Note:
    """A type of the author's own."""

    text: str


@dataclass
class Unknown:
    """A type that no schema names."""

    text: str


class Noting(TypedDict):
    notes: Annotated[list[Note], operator.add]
    loose: object


async def test_types_of_the_graph_s_schemas_are_made_again_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph = one_node(Noting, lambda state: {"notes": [Note("a")], "loose": Unknown("b")})
    blobs = Blobs()
    await in_a_new_process(graph, {"notes": []}, blobs)
    result = await in_a_new_process(
        one_node(Noting, lambda state: {"notes": []}), {"notes": []}, blobs
    )
    assert result["notes"] == [Note("a")]
    assert not isinstance(result["loose"], Unknown)
    assert "Unknown" in caplog.text


async def test_what_another_agent_kept_is_not_read() -> None:
    blobs = Blobs()
    graph = one_node(Counting, lambda state: {"items": [len(state["items"])]})
    await in_a_new_process(graph, {"items": [7]}, blobs)
    other = ThreadSaver(blobs, "b", THREAD, ())
    await other.restore()
    assert other.get_tuple(CONFIG) is None


async def test_nothing_is_stored_where_nothing_has_changed() -> None:
    blobs = Blobs()
    saver = ThreadSaver(blobs, "a", THREAD, ())
    await saver.restore()
    await saver.keep()
    assert blobs.size == 0
