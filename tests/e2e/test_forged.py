"""With any one layer's check switched off, a forged event that passes another layer still reaches nobody.

What is not said here: that a layer whose check is off could tell who speaks at its own port. It could not.
Until services authenticate each other, who can reach that port decides (docs/security.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.chain import Chain, running_chain
from tests.e2e.forging import FORGED, LAYERS, NOBODY, VICTIM, forge_everywhere
from tests.e2e.sockets import connected
from tests.waiting import until_true

pytestmark = pytest.mark.asyncio(loop_scope="session")

_UNCHECKED = Path(__file__).parent / "unchecked"


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says whose check is off."""
    file = tmp_path_factory.mktemp("unchecked") / "layer"
    file.write_text("")
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chain(unchecked: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    env = {"UNCHECKED_LAYER_FILE": str(unchecked), "PYTHONPATH": f"{_UNCHECKED}:{Path.cwd()}"}
    async with running_chain(tmp_path_factory.mktemp("chain"), env=env) as running:
        yield running


@pytest.mark.parametrize("layer", [NOBODY, *LAYERS])
async def test_a_forged_event_reaches_nobody(chain: Chain, unchecked: Path, layer: str) -> None:
    thread = f"unchecked-{layer}"
    unchecked.write_text(layer)
    async with connected(chain.state.edge, chain.token(VICTIM.user)) as victim:
        genuine = await victim.start("steps", "40:50", thread=thread)
        await victim.event(genuine["run"], "agent_thinking")
        await forge_everywhere(chain, genuine["run"], thread, layer)
        await victim.ending(genuine["run"])
        await victim.result("ping")
        seen = "".join(victim.texts)
        await victim.result("subscribe", thread=thread, after=0)
        await victim.wait_for(lambda f: f["op"] == "caught_up")
    if layer != NOBODY:  # else it was not switched off
        await until_true(lambda: f"UNCHECKED {layer}" in chain.log())
    assert FORGED not in seen
    assert FORGED not in "".join(victim.texts)
    assert {event["run"] for event in victim.events()} == {genuine["run"]}
