"""The libraries that agents are made with, in forked processes."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.integration.agents.conftest import serving


async def test_numpy_langgraph_and_pydantic_ai_are_imported_once_and_work_in_forks(
    tmp_path: Path,
) -> None:
    module = "tests.integration.agents.library_samples"
    async with serving(tmp_path, module, isolation="process") as chain:
        zygote = chain.agents.processes.zygote
        assert zygote is not None
        assert zygote.unforkable == {}
        found = []
        for _ in range(2):
            ctx = chain.token("libraries")
            events = await chain.run(ctx, "one two")
            assert events[-1].WhichOneof("event") == "agent_completed", events[-1]
            found.append(orjson.loads(events[-1].agent_completed.output_json))
    drawn = [each.pop("random") for each in found]
    assert drawn[0] != drawn[1]
    expected = {"words": ["one", "two"], "answer": "yes", "sum": 27_000_000.0, "grpc": False}
    assert found == [expected, expected]
