"""Libraries that agents are written with, imported before the fork."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from factorychain._core.ids import Principal
from tests.integration.agents.conftest import Chain, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODULES = {
    "computes": "tests.integration.agents.numpy_samples",
    "walks": "tests.integration.agents.langgraph_samples",
    "answers": "tests.integration.agents.pydantic_ai_samples",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """One for all of them: importing takes seconds."""
    folder = tmp_path_factory.mktemp("libraries")
    async with serving(folder, *MODULES.values(), isolation="process") as started:
        yield started


async def output(chain: Chain, agent: str, text: str = "hi", user: str = "ada") -> Any:
    ctx = chain.token(agent, principal=Principal("acme", user))
    last = (await chain.run(ctx, text))[-1]
    assert last.WhichOneof("event") == "agent_completed", last
    return orjson.loads(last.agent_completed.output_json)


async def test_none_of_them_starts_a_thread_before_the_fork(chain: Chain) -> None:
    zygote = chain.agents.processes.zygote
    assert zygote is not None
    assert zygote.unforkable == {}
    assert [name for name in MODULES if zygote.prepared.missing[name]] == []
    assert len(list(Path(f"/proc/{zygote.pid}/task").iterdir())) == 1


async def test_numpy_computes_in_each_process_and_draws_what_no_other_one_draws(
    chain: Chain,
) -> None:
    found = await asyncio.gather(*(output(chain, "computes") for _ in range(4)))
    assert {each["product"] for each in found} == {1600.0}
    assert [each["values"] for each in found] == [[1.0, 4.0, 9.0]] * 4
    assert {each["threads"] for each in found} == {1}
    assert len({each["drawn"] for each in found}) == 4


async def test_a_langgraph_graph_runs_with_its_checkpointer_and_finds_nothing_of_others(
    chain: Chain,
) -> None:
    for user in ("ada", "bob"):
        found = await output(chain, "walks", f"hello {user}", user)
        text = f"HELLO {user.upper()} HELLO {user.upper()}"
        assert found["found"] == {"text": text, "steps": ["shout", "repeat"]}
        assert found["saved"] == found["found"]
        assert found["before"] == 0


async def test_a_pydantic_ai_agent_answers_and_uses_its_tools(chain: Chain) -> None:
    for user in ("ada", "bob"):
        found = await output(chain, "answers", f"hello {user}", user)
        assert found["answer"] == f"answered ['hello {user}']"
        assert orjson.loads(found["tools"]) == {"measure": 1}
        assert len(found["used_in"]) == 1
        assert found["used_in"] != ["MainThread"]
