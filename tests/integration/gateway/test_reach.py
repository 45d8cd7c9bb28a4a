"""What runs can reach through the gateway, and what they cannot."""

from __future__ import annotations

import pytest

from tests.integration.gateway.conftest import Place, Start
from tests.integration.gateway.reading import failure, output, said, usage
from tests.vendor import Turn, VendorUsage

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("agent", ["talker", "early", "threaded", "responder", "claude"])
async def test_every_client_finds_the_gateway_in_a_task(here: Place, agent: str) -> None:
    here.vendor.script(Turn(text=["Hel", "lo"], usage=VendorUsage(11, 7, 3, 2)))
    events = await here.chain.run(here.chain.token(agent), "hi")
    assert output(events) == "Hello"
    assert usage(events) == (11, 7, 3, 0 if agent == "claude" else 2, 1)
    assert here.vendor.requests[0].key == here.vendor.key


async def test_usage_is_asked_for_and_what_came_for_it_is_kept_from_the_client(
    here: Place,
) -> None:
    # The agent asserts that every chunk has choices.
    events = await here.chain.run(here.chain.token("talker"), "one two")
    assert said(events) == "You said: one two"
    assert here.vendor.requests[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("agent", ["repeater", "threaded", "claude_here"])
async def test_connections_to_vendors_are_used_again(here: Place, agent: str) -> None:
    for _ in range(3):
        output(await here.chain.run(here.chain.token(agent), "2"))
    assert len({each.peer for each in here.vendor.requests}) == 1


async def test_servers_of_models_have_names(here: Place) -> None:
    assert output(await here.chain.run(here.chain.token("named"), "small")) == "You said: hi"
    assert (
        failure(await here.chain.run(here.chain.token("named"), "large")).reason == "AGENT_FAILED"
    )
    assert len(here.vendor.requests) == 1


async def test_what_the_vendor_keeps_for_the_operator_is_out_of_reach(here: Place) -> None:
    for path in ("GET /files", "DELETE /files/f1", "GET /responses/r1", "POST /../u/small/v2/x"):
        refused = failure(await here.chain.run(here.chain.token("wanderer"), path))
        assert refused.reason == "MODEL_NOT_ALLOWED", path
    assert here.vendor.requests == []


async def test_without_a_gateway_runs_know_of_none(start: Start) -> None:
    nothing = {"llm_base_url": "", "llm_api_key": "", "llm_upstreams_file": None}
    module = "tests.integration.agents.samples"
    async with start(module=module, credentials_file=None, **nothing) as chain:
        assert chain.agents.gateway is None
        assert output(await chain.run(chain.token("five"), "hi"))
