"""Programs of MCP servers inside the confinement of a run, through the whole agents service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.types.v1.event_pb2 import Event
from tests.integration.agents.conftest import Chain, metadata, serving
from tests.integration.mcp.running import calls, is_running
from tests.integration.mcp.test_mcp_http import Served, served
from tests.waiting import until_true

__all__ = ["served"]

MODULE = "tests.integration.mcp.samples"


@pytest.fixture
async def chain(tmp_path: Path, served: Served) -> AsyncIterator[Chain]:
    credentials = tmp_path / "credentials.toml"
    credentials.write_text(
        f'[tickets]\nbase_url = "http://127.0.0.1:{served.port}"\n'
        'users.acme.ada = "secret-of-ada"\nusers.acme.ben = "secret-of-ben"\n'
    )
    changes: dict[str, Any] = {"agent_processes": True, "idle_processes_min": 0}
    changes["credentials_file"] = credentials
    async with serving(tmp_path, MODULE, isolation="process", **changes) as started:
        yield started


def output_of(events: list[Event]) -> Any:
    assert events[-1].WhichOneof("event") == "agent_completed", events[-1]
    return orjson.loads(events[-1].agent_completed.output_json)


async def test_programs_run_inside_apart_and_end_with_their_runs(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    monkeypatch.setattr(chain.agents.processes, "show", lambda *said: printed.append(said[2]))
    made = calls(("remember", {"word": "mine"}), ("about", {}), ("dies", {}), ("about", {}))
    tokens = [chain.token("caller", principal=Principal("acme", each)) for each in ("ada", "ben")]
    found = await asyncio.gather(*(chain.run(each, made) for each in tokens))
    for said, about, died, after in map(output_of, found):
        assert said == ["mine"]
        # In the run's own folder, which is gone with it, confined like the run.
        assert about["cwd"] == about["env"]["HOME"] == about["env"]["TMPDIR"]
        await until_true(partial(_is_gone, about["cwd"]))
        assert not any(name.startswith(("OPENAI_", "FACTORYCHAIN_")) for name in about["env"])
        assert died == after == "TOOL_SERVER_LOST: The tool server tools has ended"

    tokens = [chain.token("trusted", principal=Principal("acme", each)) for each in ("ada", "ben")]
    made = calls(("badge", {}), ("words", {"count": 2}))
    found = await asyncio.gather(*(chain.run(each, made) for each in tokens))
    for user, events in zip(("ada", "ben"), found, strict=True):
        badge, words, seen = output_of(events)
        assert (badge, words) == (user, "done")
        assert "secret" not in seen
        assert sum(each.HasField("tool_progress") for each in events) == 2

    official = output_of(await chain.run(chain.token("official"), calls(("add", {"a": 1, "b": 2}))))
    assert official == [3]

    ctx = chain.token("caller")
    call = chain.execute(ctx, calls(("about", {}), ("hangs", {})))
    await anext(aiter(call))
    await chain.log.wait_for(lambda: chain.log.kinds(ctx.run).count("tool_executing") == 2)
    await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(ctx))
    assert [each.WhichOneof("life") async for each in call][-1] == "finished"
    events = chain.log.events(ctx.run)
    assert events[-1].WhichOneof("event") == "agent_cancelled"
    about = orjson.loads(events[2].tool_completed.result_json)
    await until_true(lambda: not is_running(about["pid"]))

    undeclared = await chain.run(chain.token("undeclared"))
    assert undeclared[-1].agent_failed.reason == "TOOL_SERVER_UNAVAILABLE"
    await until_true(lambda: "unless it sets `processes = True`" in "".join(printed))


def _is_gone(folder: str) -> bool:
    return not Path(folder).exists()
