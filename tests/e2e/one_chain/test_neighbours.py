"""What one run does, or one client does not do, harms nobody else."""

from __future__ import annotations

import pytest

from tests.e2e.chain import Chain
from tests.e2e.sockets import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("how", ["think", "emit", "tool", "fail", "error", "return"])
async def test_a_run_that_says_far_too_much_ends_and_holds_up_no_other(
    chain: Chain, how: str
) -> None:
    logged = len(chain.log())
    async with (
        connected(chain.state.edge, chain.token(f"much-{how}")) as much,
        connected(chain.state.edge, chain.token("neighbour")) as neighbour,
    ):
        steady = await neighbour.start("steps", "60:30")
        immoderate = await much.start("immoderate", how)
        ending = await much.ending(immoderate["run"])
        assert ending["type"] == "agent_failed", ending
        assert ending["data"]["reason"] in (
            "OUTPUT_TOO_LARGE",
            "AGENT_ERROR",
            "AGENT_FAILED",
            "TOOL_ERROR",
        )
        assert (await neighbour.ending(steady["run"]))["type"] == "agent_completed"
    assert "the link broke" not in chain.log()[logged:]
