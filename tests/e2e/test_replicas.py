"""Two replicas of every layer over three NATS servers: any client sees any run and may end it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.copies import copies
from tests.e2e.replicated import Replicated, replicated
from tests.e2e.sizes import NODES
from tests.e2e.sockets import Socket, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_run_is_the_same_at_every_edge(tmp_path: Path) -> None:
    async with replicated(tmp_path / "chain") as chain:
        for user, here, there in (("a", *chain.edges), ("b", *reversed(chain.edges))):
            async with (
                connected(here, chain.token(user)) as starter,
                connected(there, chain.token(user)) as onlooker,
                connected(there, chain.token("somebody-else")) as other,
            ):
                await onlooker.result("subscribe", thread="t", after=0)
                run = await _told(starter, "5|10")
                assert await onlooker.ending(run) == await starter.ending(run)
                run = await _told(starter, "1000|50")
                refusal = await other.call("cancel", run=run)
                assert refusal["error"]["reason"] == "RUN_NOT_FOUND"
                await onlooker.result("cancel", run=run)
                ending = await onlooker.ending(run)
                assert ending["type"] == "agent_cancelled"
                assert ending == await starter.ending(run)
        await _check_copies(chain)


async def _check_copies(chain: Replicated) -> None:
    """Every stream and every bucket that there is has its copy on every node: any one may be lost."""
    found = await copies([chain.monitor(each) for each in range(NODES)])
    assert {"EVENTS-0", "KV_runs"} <= found.keys()
    wanted = {name: [each.wanted for each in held.values()] for name, held in found.items()}
    assert wanted == dict.fromkeys(found, [NODES] * NODES)


async def _told(socket: Socket, story: str) -> str:
    text = {"text": f"c|{story}"}
    started = await socket.result("start", agent="tells", thread="t", input=text)
    return str(started["run"])
