"""Runs in processes of their own, through the whole agents service."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.types.v1.event_pb2 import Event
from tests.integration.agents.conftest import Chain, serving

MODULE = "tests.integration.agents.process_samples"


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with serving(tmp_path, MODULE, isolation="process") as started:
        yield started


def kind_of(event: Event) -> str:
    return event.WhichOneof("event") or ""


def output_of(events: list[Event]) -> Any:
    return orjson.loads(events[-1].agent_completed.output_json)


async def begun(chain: Chain, agent: str, text: str = "hi", **changes: Any) -> tuple[Any, Any]:
    """A run, and the stream of its life."""
    ctx = chain.token(agent, **changes)
    call = chain.execute(ctx, text)
    await anext(aiter(call))
    return ctx, call


async def test_a_run_says_the_five_events_from_its_process(chain: Chain) -> None:
    ctx = chain.token("five")
    events = await chain.run(ctx, "a word")
    assert [kind_of(each) for each in events] == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "message_delta",
        "agent_completed",
    ]
    assert chain.log.run_seqs(ctx.run) == [1, 2, 3, 4, 5, 6]
    assert orjson.loads(events[3].tool_completed.result_json) == {"seen": "a word", "by": "ada"}
    assert output_of(events) == "a word"
    assert events[-1].agent_completed.message == events[4].message_delta.message


async def test_each_run_has_a_fresh_process_and_what_is_shared_was_made_before_it(
    chain: Chain,
) -> None:
    users = ("ada", "bob", "cyd")
    runs = [chain.token("where", principal=Principal("acme", user)) for user in users]
    found = [output_of(await chain.run(ctx)) for ctx in runs]
    assert len({each["pid"] for each in found} | {os.getpid()}) == 4
    assert chain.agents.processes.zygote is not None
    assert {each["maker"] for each in found} == {chain.agents.processes.zygote.pid}
    assert [each["before"] for each in found] == [[], [], []]
    assert not any(each["grpc"] for each in found)
    assert len({each["folder"] for each in found}) == 3
