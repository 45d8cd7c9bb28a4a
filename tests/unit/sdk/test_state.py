"""What an agent keeps between the runs of a conversation."""

from __future__ import annotations

import asyncio

import pytest

from factorychain import Agent, RunContext
from factorychain._instance.memory_values import MemoryValues
from factorychain.errors import StateConflict
from factorychain.testing import Conversation, RunResult, run


class Keeps(Agent):
    """Keeps what it is told to."""

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_get(self, ctx: RunContext) -> object:
        return await ctx.state.get("nothing")

    async def case_set(self, ctx: RunContext) -> None:
        await ctx.state.set({"seen": [1, 2]})

    async def case_remove(self, ctx: RunContext) -> None:
        await ctx.state.set(None)

    async def case_count(self, ctx: RunContext) -> object:
        return await ctx.state.update(_one_more, default=0)

    async def case_count_at_once(self, ctx: RunContext) -> object:
        async def slowly(count: object) -> int:
            await asyncio.sleep(0)
            return _one_more(count)

        await asyncio.gather(*(ctx.state.update(slowly, 0) for _ in range(8)))
        return await ctx.state.get()

    async def case_no_json(self, ctx: RunContext) -> None:
        await ctx.state.set(object())


def _one_more(count: object) -> int:
    assert isinstance(count, int)
    return count + 1


def ran(case: str, conversation: Conversation) -> RunResult:
    result = run(Keeps, case, conversation=conversation)
    assert result.ending.type == "agent_completed", result.ending
    return result


def test_what_one_run_keeps_the_next_one_has() -> None:
    conversation = Conversation()
    assert ran("get", conversation).output == "nothing"
    ran("set", conversation)
    assert ran("get", conversation).output == {"seen": [1, 2]}
    assert conversation.state == {"seen": [1, 2]}
    ran("remove", conversation)
    assert ran("get", conversation).output == "nothing"
    assert [each.input.text for each in conversation.history] == [
        "get",
        "set",
        "get",
        "remove",
        "get",
    ]


def test_a_conversation_may_begin_with_a_state() -> None:
    assert ran("count", Conversation(state=41)).output == 42


def test_changes_at_once_are_all_made() -> None:
    assert ran("count_at_once", Conversation()).output == 8


def test_what_has_no_json_form_is_refused() -> None:
    conversation = Conversation(state=1)
    result = run(Keeps, "no_json", conversation=conversation)
    assert result.ending.data["reason"] == "AGENT_FAILED"
    assert conversation.state == 1


class Contended(MemoryValues):
    """Somebody else is always faster."""

    def store(self, name: str, value: bytes | None, revision: int) -> int:
        raise StateConflict(name)


def test_who_never_has_a_turn_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factorychain.state._LONGEST_PAUSE_S", 0.001)
    conversation = Conversation()
    conversation.kept = Contended()
    result = run(Keeps, "set", conversation=conversation)
    assert result.ending.type == "agent_failed"


def test_each_run_without_a_conversation_begins_with_nothing() -> None:
    run(Keeps, "set")
    assert run(Keeps, "get").output == "nothing"
