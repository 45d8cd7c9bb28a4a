"""Calls that wait for their user: asked for as a run ends, answered as the next one begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from pydantic_ai import Agent, ApprovalRequired, CallDeferred
from pydantic_ai import RunContext as Context
from pydantic_ai.tools import DeferredToolRequests, ToolDefinition
from pydantic_ai.toolsets import ExternalToolset

from factorychain import Agent as FactoryAgent
from factorychain import RunContext
from factorychain.adapters.pydantic_ai import agent
from factorychain.input import Json
from factorychain.testing import Conversation, run_async
from tests.integration.adapters.pydantic_ai.models import Models, outline
from tests.vendor import Call, Fault, Turn, Vendor

_SCHEMA: dict[str, object] = {"type": "object", "properties": {}}


@dataclass
class Shop:
    """An agent with all the ways to wait, and what it has sold."""

    agent: Agent[object, str | DeferredToolRequests]
    sold: list[str] = field(default_factory=list)


def shop(model: Models, max_retries: int = 2) -> Shop:
    client = ExternalToolset([ToolDefinition(name="locate", parameters_json_schema=_SCHEMA)])
    made: Agent[object, str | DeferredToolRequests] = Agent(
        model(max_retries=max_retries), output_type=[str, DeferredToolRequests], toolsets=[client]
    )
    found = Shop(made)

    @made.tool_plain(requires_approval=True)
    def buy(item: str) -> str:
        found.sold.append(item)
        return f"bought {item}"

    @made.tool
    def order(ctx: Context[object], pieces: int) -> str:
        if pieces > 3 and not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"prompt": "That many?"})
        return f"ordered {pieces}"

    @made.tool_plain
    def ask(question: str) -> str:
        raise CallDeferred(kind="question", metadata={"prompt": question})

    @made.tool_plain
    def price() -> int:
        return 3

    return found


async def test_the_run_ends_with_what_it_waits_for(vendor: Vendor, model: Models) -> None:
    calls = [
        Call("price", id="p"),
        Call("buy", {"item": "tea"}, id="b"),
        Call("order", {"pieces": 5}, id="o"),
        Call("ask", {"question": "Which tea?"}, id="q"),
        Call("locate", id="l"),
    ]
    vendor.script(Turn(calls=calls))
    result = await run_async(shop(model).agent, "tea, please")
    assert result.ending.type == "agent_completed", result.ending
    fields = ("request", "kind", "tool", "prompt", "arguments")
    pending = cast("list[dict[str, Json]]", result.pending)
    assert sorted([each[name] for name in fields] for each in pending) == [
        ["b", "approval", "buy", "", {"item": "tea"}],
        ["l", "tool", "locate", "", {}],
        ["o", "approval", "order", "That many?", {"pieces": 5}],
        ["q", "question", "ask", "Which tea?", {"question": "Which tea?"}],
    ]
    shown = outline(result)
    assert "price=3" in shown
    assert not [each for each in shown if each.startswith(("buy", "locate"))]
    assert "order={'reason': 'INTERRUPTED', 'message': 'The call waits for an approval'}" in shown


async def test_the_answers_reach_the_calls_that_asked(vendor: Vendor, model: Models) -> None:
    sells, talk = shop(model), Conversation()
    calls = [
        Call("buy", {"item": "tea"}, id="b1"),
        Call("buy", {"item": "gold"}, id="b2"),
        Call("ask", {"question": "Which tea?"}, id="q"),
        Call("locate", id="l"),
    ]
    vendor.script(Turn(calls=calls), Turn(text="Done."), Turn(text="As I said."))
    await run_async(sells.agent, "tea, please", conversation=talk)
    answers: dict[str, Json] = {"b1": True, "b2": False, "q": "Darjeeling", "l": {"city": "Turin"}}
    result = await run_async(sells.agent, "tea, please", conversation=talk, resume=answers)
    shown = outline(result)
    assert shown[-1] == "say Done."
    assert sorted(shown[:-1]) == sorted(
        [
            "buy({'item': 'tea'})", "buy=bought tea",
            "buy({'item': 'gold'})",
            "buy={'reason': 'REFUSED', 'message': 'The tool call was denied.'}",
            "ask({'question': 'Which tea?'})", "ask=Darjeeling",
            "locate({})", "locate={'city': 'Turin'}",
        ]
    )  # fmt: skip
    assert sells.sold == ["tea"]
    asked = vendor.requests[-1]
    assert [each["role"] for each in asked.messages] == ["user", "assistant", *["tool"] * 4]
    await run_async(sells.agent, "what?", conversation=talk)
    assert len(vendor.requests[-1].tool_results) == 4
    assert sells.sold == ["tea"]


async def test_an_approved_call_may_ask_and_is_shown_once_more(
    vendor: Vendor, model: Models
) -> None:
    sells, talk = shop(model), Conversation()
    vendor.script(Turn(calls=[Call("order", {"pieces": 5}, id="o")]), Turn(text="Done."))
    await run_async(sells.agent, "five", conversation=talk)
    result = await run_async(sells.agent, "five", conversation=talk, resume={"o": True})
    assert outline(result) == ["order({'pieces': 5})", "order=ordered 5", "say Done."]


async def test_an_approval_is_true_and_nothing_else(vendor: Vendor, model: Models) -> None:
    wrong: list[Json] = ["true", 1, {"approved": True}, None]
    for answer in wrong:
        sells, talk = shop(model), Conversation()
        vendor.script(Turn(calls=[Call("buy", {"item": "tea"}, id="b")]), Turn(text="No."))
        await run_async(sells.agent, "tea", conversation=talk)
        await run_async(sells.agent, "tea", conversation=talk, resume={"b": answer})
        assert sells.sold == []


async def test_a_user_who_says_something_else_instead_is_heard(
    vendor: Vendor, model: Models
) -> None:
    sells, talk = shop(model), Conversation()
    vendor.script(
        Turn(calls=[Call("buy", {"item": "tea"}, id="b")]),
        Turn(text="As you like."),
    )
    await run_async(sells.agent, "tea", conversation=talk)
    result = await run_async(sells.agent, "never mind", conversation=talk)
    assert result.output == "As you like."
    assert len(vendor.requests[-1].tool_results) == 1
    late = await run_async(
        agent(sells.agent, name="agent"), "tea", conversation=talk, resume={"b": True}
    )
    assert outline(late) == ["failed CONVERSATION_GONE_ON"]
    assert sells.sold == []


async def test_what_was_approved_is_not_done_again_after_a_failure(
    vendor: Vendor, model: Models
) -> None:
    sells, talk = shop(model, max_retries=0), Conversation()
    vendor.script(
        Turn(calls=[Call("buy", {"item": "tea"}, id="b")]),
        Turn(fault=Fault(status=503)),
        Turn(text="It was bought."),
    )
    await run_async(sells.agent, "tea", conversation=talk)
    failed = await run_async(sells.agent, "tea", conversation=talk, resume={"b": True})
    assert outline(failed)[-1] == "failed MODEL_UNAVAILABLE"
    await run_async(sells.agent, "and?", conversation=talk)
    assert vendor.requests[-1].tool_results == ["bought tea"]
    assert sells.sold == ["tea"]


async def test_a_conversation_too_large_to_go_on_says_so(vendor: Vendor, model: Models) -> None:
    sells = agent(shop(model).agent, name="tiny", remembered_bytes=100)
    vendor.script(Turn(calls=[Call("buy", {"item": "tea"}, id="b")]))
    assert outline(await run_async(sells, "tea"))[-1] == "failed CONVERSATION_TOO_LARGE"


class Boss(FactoryAgent):
    """Has others work."""

    async def run(self, ctx: RunContext, text: str) -> object:
        return [await ctx.run("helper", "help"), await ctx.run("shop", "tea")]


async def test_a_sub_agent_waits_and_goes_on_where_it_was_called(
    vendor: Vendor, model: Models
) -> None:
    sells, talk = shop(model), Conversation()
    others = [agent(Agent(model()), name="helper"), agent(sells.agent, name="shop")]
    vendor.script(Turn(text="One."), Turn(calls=[Call("buy", {"item": "tea"}, id="b")]))
    first = await run_async(Boss, "go", agents=others, conversation=talk)
    assert [cast("dict[str, Json]", each)["request"] for each in first.pending] == ["b"]
    vendor.script(Turn(text="Two."), Turn(text="Here is your tea."))
    last = await run_async(Boss, "go", agents=others, conversation=talk, resume={"b": True})
    assert last.output == ["Two.", "Here is your tea."], last.ending
    assert sells.sold == ["tea"]
    assert "buy=bought tea" in outline(last)
    # Each call of a sub-agent begins anew, and leaves nothing.
    assert [each["content"] for each in vendor.requests[2].messages] == ["help"]
    await run_async(Boss, "go", agents=others, conversation=talk)
    assert len(vendor.requests[-1].messages) == 1
