"""What a graph is given, what it is told of its run, and what it comes to."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel
from typing_extensions import TypedDict

from factorychain.adapters import adapt
from factorychain.adapters.langgraph import agent, run_context
from factorychain.testing import Conversation, run_async
from tests.integration.adapters.graphs import (
    chat,
    model_of,
    pipeline,
)
from tests.vendor import Turn, Vendor

pytestmark = pytest.mark.usefixtures("langchain_clients")


async def test_data_and_text_fill_the_fields_of_a_graph_without_messages() -> None:
    graph, conversation = pipeline(), Conversation()
    result = await run_async(graph, "bees", conversation=conversation)
    assert result.output == {"topic": "bees", "notes": ["about bees", "done"]}
    thoughts = [each.data["text"] for each in result.of_type("agent_thinking")]
    assert thoughts == ["Look up", "Putting it on paper"]
    given: dict[str, Any] = {"data": {"topic": "ants", "notes": ["given"], "more": 1}}
    again = await run_async(graph, given, conversation=conversation)
    assert again.output == {"topic": "ants", "notes": ["given", "about ants", "done"]}


async def test_the_output_is_what_the_graph_calls_its_output() -> None:
    class State(BaseModel):
        topic: str
        secret: str = "the plan"
        answer: str = ""

    class Answer(BaseModel):
        answer: str

    builder = StateGraph(State, output_schema=Answer)
    builder.add_node("think", lambda state: {"secret": "another plan"})
    builder.add_node("say", lambda state: {"answer": state.topic.upper()})
    builder.add_edge(START, "think").add_edge("think", "say")
    result = await run_async(builder.compile(), "bees")
    assert result.output == {"answer": "BEES"}
    assert "plan" not in str(result.events)


async def test_an_input_that_the_graph_does_not_take_is_told() -> None:
    result = await run_async(pipeline(), {"data": {"subject": "bees"}})
    assert result.ending.data["reason"] == "INVALID_INPUT"
    assert "topic" in str(result.ending.data["message"])


async def test_a_user_s_data_does_not_reach_the_state_behind_a_conversation(
    vendor: Vendor,
) -> None:
    class State(MessagesState):
        approved: bool

    seen: list[object] = []

    def answer(state: State) -> dict[str, Any]:
        seen.append(state.get("approved"))
        return {"messages": [("ai", "noted")]}

    graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile()
    given: dict[str, Any] = {
        "text": "hi",
        "data": {"approved": True, "messages": [{"role": "system"}]},
    }
    result = await run_async(graph, given)
    assert seen == [None]
    assert result.output == "noted"


async def test_images_reach_the_model(vendor: Vendor) -> None:
    given: dict[str, Any] = {
        "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image", "url": "https://example.org/a.png"},
            {"type": "image", "data": "aGVsbG8=", "media_type": "image/png"},
        ]
    }
    await run_async(chat(vendor), given)
    (message,) = vendor.requests[0].messages
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "image_url"]
    assert message["content"][2]["image_url"]["url"] == "data:image/png;base64,aGVsbG8="


async def test_a_workflow_of_the_functional_api(vendor: Vendor) -> None:
    model = model_of(vendor)

    @entrypoint()
    async def shout(text: str) -> str:
        return str((await model.ainvoke(text)).text).upper()

    vendor.script(Turn(text="quietly"))
    result = await run_async(shout, "say it")
    assert result.output == "QUIETLY"
    assert result.text == "quietly"


async def test_who_asks_is_in_the_configuration_and_threads_of_two_users_are_two() -> None:
    seen: list[dict[str, Any]] = []

    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        seen.append(dict(config["configurable"]))
        assert run_context().user == config["configurable"]["user"]
        return {"messages": [("ai", "yes")]}

    builder = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
    served = agent(builder.compile(), name="served", configurable={"shop": "north"})
    for tenant, user in (("default", "ada"), ("default", "bob"), ("acme", "ada")):
        await run_async(
            served, "hi", tenant=tenant, user=user, thread="t1", metadata={"lang": "it"}
        )
    assert [each["user"] for each in seen] == ["ada", "bob", "ada"]
    assert [each["thread"] for each in seen] == ["t1", "t1", "t1"]
    assert len({each["user_id"] for each in seen}) == len({each["thread_id"] for each in seen}) == 3
    assert seen[0]["metadata"] == {"lang": "it"}
    assert seen[0]["shop"] == "north"
    with pytest.raises(RuntimeError):
        run_context()


async def test_a_context_schema_gets_what_is_known_of_the_run() -> None:
    @dataclasses.dataclass
    class Known:
        user: str
        shop: str = ""

    def node(state: MessagesState, runtime: Runtime[Known]) -> dict[str, Any]:
        return {"messages": [("ai", f"{runtime.context.user} in {runtime.context.shop}")]}

    builder = StateGraph(MessagesState, context_schema=Known).add_node("n", node)
    graph = builder.add_edge(START, "n").compile()
    served = agent(graph, name="served", configurable={"shop": "north"})
    result = await run_async(served, "hi", user="ada")
    assert result.output == "ada in north"


async def test_input_and_output_may_be_mapped() -> None:
    class Square(TypedDict):
        number: int

    def node(state: Square) -> dict[str, int]:
        return {"number": state["number"] ** 2}

    graph = StateGraph(Square).add_node("n", node).add_edge(START, "n").compile()

    def shown(state: Any) -> str:
        return f"{state['number']}!"

    served = agent(
        graph,
        name="square",
        input=lambda ctx: {"number": int(ctx.input.text)},
        output=shown,
    )
    assert (await run_async(served, "12")).output == "144!"


def test_names_come_from_variables_and_choices_from_the_author() -> None:
    graph = pipeline()
    adapted = adapt(graph, "My_Graph")
    assert adapted is not None
    assert adapted.name == "my_graph"
    with pytest.raises(TypeError, match="nonsense"):
        agent(graph, name="x", nonsense=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="compile"):
        agent(StateGraph(MessagesState), name="x")
