"""Two replicas of every layer over three NATS servers: any one server may be lost with all that it stored.

Users are served while it is away. It comes back with nothing, has everything again by itself, and only then
is the next one lost: in the end no server has anything that it had in the beginning.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from tests.e2e.aftermath import Aftermath
from tests.e2e.copies import Copies, copies
from tests.e2e.replicated import Replicated, replicated
from tests.e2e.sizes import NODES
from tests.e2e.witness import Witness
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

THOUGHTS = 5
_SERVED_S = 60.0
"""A leader is elected meanwhile."""
_CAUGHT_UP_S = 60.0


@pytest.mark.timeout(600)
async def test_any_one_node_may_be_lost_with_its_disk(tmp_path: Path) -> None:
    async with replicated(tmp_path / "chain") as chain:
        story = f"{THOUGHTS}|20"
        witness = Witness(
            lambda: random.choice(chain.edges), chain.token("user"), "user", threads=NODES + 1, story=story
        )  # fmt: skip
        connection = asyncio.create_task(witness.connect_for_ever())
        try:
            before, *others = witness.seen
            await _served(chain, witness, before, "nothing is lost yet")
            for index, thread in enumerate(others):
                await _lose(chain, index)
                await _served(chain, witness, thread, f"nats-{index} is lost")
                await _come_back_empty(chain, index)
        finally:
            connection.cancel()
            await asyncio.gather(connection, return_exceptions=True)


async def _served(chain: Replicated, witness: Witness, thread: str, story: str) -> None:
    """A run is started and ends, and whoever joins late sees it and everything before."""
    done, runs = asyncio.Event(), len(witness.admitted)
    talk = asyncio.create_task(witness.talk(thread, done))
    try:
        async with asyncio.timeout(_SERVED_S):
            await until(lambda: _more(witness, runs), _SERVED_S)
            done.set()
            await talk
    except TimeoutError:
        left = f"{story}: {witness.refusals}, no ending of {witness.waiting_for()}"
        raise AssertionError(left) from None
    finally:
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
    assert witness.broken == [], story
    after = Aftermath(lambda: random.choice(chain.edges), chain.token, THOUGHTS, story)
    await after.check_log(witness)


async def _more(witness: Witness, than: int) -> bool:
    return len(witness.admitted) > than


async def _lose(chain: Replicated, index: int) -> None:
    await chain.kill(f"nats-{index}")
    shutil.rmtree(chain.folder / f"nats-{index}")


async def _come_back_empty(chain: Replicated, index: int) -> None:
    """Returns when it has what the others have."""
    others = [chain.monitor(each) for each in range(NODES) if each != index]
    there = await copies(others)
    assert all(each.keys() == set(others) for each in there.values()), there
    await chain.start(f"nats-{index}")
    await chain.serving(f"nats-{index}")
    own = chain.monitor(index)
    await until(lambda: _has(own, there), _CAUGHT_UP_S)


async def _has(server: str, there: Copies) -> bool:
    """Whether it has of every stream what others had a while ago."""
    here = await copies([server])
    return all(
        name in here and here[name][server].last_seq >= max(each.last_seq for each in held.values())
        for name, held in there.items()
    )
