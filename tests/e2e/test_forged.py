"""With any one layer's check switched off, a forged event still reaches no other user's socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.chain import running_chain
from tests.e2e.forging import FORGED, THREAD, VICTIM, forge_everywhere
from tests.e2e.sockets import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

_UNCHECKED = Path(__file__).parent / "unchecked"


@pytest.mark.parametrize("layer", ["engine", "agents", "emitter", "bridge"])
async def test_a_forged_event_reaches_nobody(tmp_path: Path, layer: str) -> None:
    env = {"UNCHECKED_LAYER": layer, "PYTHONPATH": f"{_UNCHECKED}:{Path.cwd()}"}
    async with (
        running_chain(tmp_path / "chain", env=env) as chain,
        connected(chain.state.edge, chain.token(VICTIM.user)) as victim,
    ):
        assert f"UNCHECKED {layer}" in chain.log(), "the check was not switched off"
        genuine = await victim.start("steps", "40:50", thread=THREAD)
        await victim.event(genuine["run"], "agent_thinking")
        await forge_everywhere(chain, genuine["run"])
        await victim.ending(genuine["run"])
        await victim.result("ping")
        seen = "".join(victim.texts)
        await victim.result("subscribe", thread=THREAD, after=0)
        await victim.wait_for(lambda f: f["op"] == "caught_up")
    assert FORGED not in seen
    assert FORGED not in "".join(victim.texts)
    assert {event["run"] for event in victim.events()} == {genuine["run"]}
