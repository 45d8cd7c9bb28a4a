"""What agents keep in their threads, as tasks and in processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.types.v1.event_pb2 import Event
from tests.integration.agents.conftest import Chain, serving


@pytest.fixture(params=["task", "process"])
async def chain(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Chain]:
    module = "tests.integration.agents.keeping_samples"
    async with serving(tmp_path, module, isolation=request.param, idle_processes_min=1) as started:
        yield started


def output_of(events: list[Event]) -> Any:
    assert events[-1].HasField("agent_completed"), events[-1]
    return orjson.loads(events[-1].agent_completed.output_json)


async def test_what_is_kept_is_of_one_thread_of_one_user(chain: Chain) -> None:
    counted = []
    for principal, thread in [("ada", "t1"), ("ada", "t1"), ("ada", "t2"), ("bob", "t1")]:
        ctx = chain.token("keeps", principal=Principal("acme", principal), thread=thread)
        counted.append(output_of(await chain.run(ctx, "count")))
    assert counted == [["ada", "t1", 1], ["ada", "t1", 2], ["ada", "t2", 1], ["bob", "t1", 1]]


async def test_changes_at_once_conflicts_and_sizes_are_as_the_engine_says(chain: Chain) -> None:
    assert output_of(await chain.run(chain.token("keeps"), "at_once")) == 5
    reason, message = output_of(await chain.run(chain.token("keeps"), "conflict"))
    assert reason == "STATE_CONFLICT"
    assert "blob was changed" in message
    assert output_of(await chain.run(chain.token("keeps"), "large")) == [True, "STATE_LIMIT"]


async def test_a_store_whose_answer_is_lost_is_repeated_and_finds_itself(chain: Chain) -> None:
    chain.engine.lost_answers = 1
    _, _, counted = output_of(await chain.run(chain.token("keeps"), "count"))
    assert counted == 1
    assert chain.engine.lost_answers == 0
    assert len(chain.engine.stored) == 1
