"""That the forgeries of `test_forged` would be seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from factorychain._core.keys import TxnKey
from tests.e2e.chain import Chain
from tests.e2e.forging import FORGED, THREAD, VICTIM, emit, publish, start_as_victim, txn_token
from tests.e2e.sockets import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(("door", "letter"), [(emit, "a"), (publish, "b")])
async def test_the_forgery_works_when_nothing_checks(
    chain: Chain, door: Callable[[Chain, str], Awaitable[object]], letter: str
) -> None:
    """The oracle: the same forgery with the engine's real key does reach the socket."""
    async with connected(chain.state.edge, chain.token(VICTIM.user)) as victim:
        thread = f"{THREAD}-{letter}"
        await victim.result("subscribe", thread=thread, after=0)
        key = TxnKey.parse(chain.data.txn_key)
        await door(chain, txn_token(key.private, key.kid, "r" + letter * 24, thread))
        await victim.wait_for(lambda f: FORGED in str(f))


async def test_a_start_works_with_the_right_secret(chain: Chain) -> None:
    """The oracle for what is refused at the engine's own port."""
    started = await start_as_victim(chain, chain.token(VICTIM.user))
    async with connected(chain.state.edge, chain.token(VICTIM.user)) as victim:
        await victim.result("subscribe", thread=THREAD, after=0)
        await victim.wait_for(lambda f: started in str(f) and FORGED in str(f))
