"""What an agent remembers of its thread, and what it is made from."""

from __future__ import annotations

import asyncio
import re

import pytest
from pydantic_ai import Agent
from pydantic_ai import RunContext as Context

from factorychain import RunContext
from factorychain.adapters.pydantic_ai import agent
from factorychain.errors import AgentDependencyMissing
from factorychain.testing import Conversation, run_async
from tests.integration.adapters.pydantic_ai.models import Models, outline
from tests.vendor import Call, Fault, Received, Turn, Vendor


async def test_the_next_run_knows_what_tools_have_answered(vendor: Vendor, model: Models) -> None:
    served = Agent(model(), system_prompt="Be brief.")

    @served.tool_plain
    def look() -> str:
        return "a blue whale"

    talk = Conversation()
    vendor.script(Turn(calls=[Call("look")]), Turn(text="Done."), Turn(text="Blue."))
    await run_async(served, "look there", conversation=talk)
    await run_async(served, "which colour?", conversation=talk)
    last = vendor.requests[-1]
    assert last.tool_results == ["a blue whale"]
    roles = [each["role"] for each in last.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]


async def test_a_system_prompt_that_was_changed_meanwhile_is_the_one_that_counts(
    vendor: Vendor,
    model: Models,
) -> None:
    talk = Conversation()
    for prompt in ("Be brief.", "Be kind."):
        await run_async(
            agent(Agent(model(), system_prompt=prompt), name="same"), "hi", conversation=talk
        )
    said = [each["content"] for each in vendor.requests[-1].messages if each["role"] == "system"]
    assert said == ["Be kind."]


async def test_a_cancelled_run_is_remembered_with_what_it_had_said(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())
    talk = Conversation()
    vendor.script(Turn(text=["One, ", "two"], fault=Fault(silent_after=2)), Turn(text="three"))
    cut = await run_async(served, "count", conversation=talk, timeout_s=3)
    assert cut.ending.type == "agent_cancelled"
    await run_async(served, "go on", conversation=talk)
    told = [each["content"] for each in vendor.requests[-1].messages]
    assert told[0] == "count"
    assert "One, " in str(told[1:])
    assert told[-1] == "go on"


async def test_a_run_that_failed_is_not_in_the_way_of_the_next(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())
    talk = Conversation()
    vendor.script(Turn(fault=Fault(status=400, message="I do not take this")), Turn(text="fine"))
    failed = await run_async(served, "poison", conversation=talk)
    assert outline(failed) == ["failed MODEL_REQUEST_REFUSED"]
    await run_async(served, "hello", conversation=talk)
    assert [each["content"] for each in vendor.requests[-1].messages] == ["hello"]


class Shelf(list[str]):
    """What an agent depends on."""


async def test_dependencies_come_by_their_type(vendor: Vendor, model: Models) -> None:
    served = Agent(model(), deps_type=Shelf)

    @served.tool
    def first(ctx: Context[Shelf]) -> str:
        return ctx.deps[0]

    vendor.script(Turn(calls=[Call("first")]), Turn(text="ok"))
    librarian = agent(served, name="librarian")
    result = await run_async(librarian, "go", overrides={Shelf: Shelf(["Emma"])})
    assert "first=Emma" in outline(result)


async def test_usage_is_counted_where_no_gateway_does(vendor: Vendor, model: Models) -> None:
    vendor.script(Turn(text="ok"))
    result = await run_async(Agent(model()), "go")
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10, 5)
    assert result.usage.requests == 1


async def test_what_is_missing_is_named_before_any_run() -> None:
    served = agent(Agent("test", deps_type=Shelf), name="librarian")
    with pytest.raises(AgentDependencyMissing, match="Shelf"):
        await run_async(served, "go")


async def test_what_tools_have_done_is_remembered_of_a_run_that_failed(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model(max_retries=0))

    @served.tool_plain
    def pay() -> str:
        return "paid"

    talk = Conversation()
    vendor.script(Turn(calls=[Call("pay")]), Turn(fault=Fault(status=503)), Turn(text="fine"))
    failed = await run_async(served, "pay them", conversation=talk)
    assert outline(failed)[-1] == "failed MODEL_UNAVAILABLE"
    await run_async(served, "try again", conversation=talk)
    assert vendor.requests[-1].tool_results == ["paid"]


async def test_agents_of_one_thread_know_of_each_other_what_the_user_does(
    vendor: Vendor, model: Models
) -> None:
    one = agent(Agent(model()), name="the_one")
    other = agent(Agent(model()), name="the-one")
    talk = Conversation()
    vendor.script(Turn(reasoning=["secret"], text="one"), Turn(text="other"), Turn(text="again"))
    for each, text in ((one, "first"), (other, "second"), (one, "third")):
        await run_async(each, text, conversation=talk)
    said = [each["content"] for each in vendor.requests[-1].messages]
    assert said == ["first", "one", "second", "other", "third"]
    assert "secret" not in str(vendor.requests[1].body)


async def test_what_was_kept_and_cannot_be_read_is_not_in_the_way(
    vendor: Vendor, model: Models, capfd: pytest.CaptureFixture[str]
) -> None:
    served = agent(Agent(model()), name="helper")
    talk = Conversation()
    talk.kept.store("pydantic-ai:helper", b"nonsense", 0)
    await run_async(served, "hello", conversation=talk)
    await run_async(served, "again", conversation=talk)
    assert len(vendor.requests[-1].messages) == 3
    assert "is not used" in capfd.readouterr().err


async def test_users_of_one_agent_at_once_hear_nothing_of_each_other(
    vendor: Vendor, model: Models
) -> None:
    served = agent(Agent(model(), deps_type=RunContext), name="shared")

    async def user(name: str) -> str:
        talk, heard = Conversation(), ""
        for turn in ("first", "second"):
            told = f"{turn} canary-{name}"
            result = await run_async(served, told, conversation=talk, user=name)
            heard += str([each.data for each in result.events])
        return heard

    names = [f"u{number:02d}" for number in range(20)]
    heard = await asyncio.gather(*(user(each) for each in names))
    for name, each in zip(names, heard, strict=True):
        assert set(re.findall(r"canary-(u\d\d)", each)) == {name}
    for request in vendor.requests:
        assert len(set(re.findall(r"canary-(u\d\d)", str(request.body)))) == 1


async def test_a_model_with_a_small_window_is_asked_with_less(
    vendor: Vendor, model: Models
) -> None:
    served, talk = Agent(model()), Conversation()
    for number in range(4):
        await run_async(served, f"turn {number}", conversation=talk)

    def small(request: Received) -> Turn:
        if len(request.messages) > 3:
            text = "This model's maximum context length is 3 messages"
            return Turn(fault=Fault(status=400, message=text))
        return Turn(text="There is room.")

    vendor.always = small
    result = await run_async(served, "and now?", conversation=talk)
    assert result.output == "There is room."
    said = [each["content"] for each in vendor.requests[-1].messages]
    assert said == ["turn 3", "You said: turn 3", "and now?"]
    vendor.always = lambda request: Turn(fault=Fault(status=400, message="maximum context length"))
    result = await run_async(served, "and now?", conversation=talk)
    assert outline(result) == ["failed INPUT_TOO_LONG"]
    assert [each["content"] for each in vendor.requests[-1].messages] == ["and now?"]
