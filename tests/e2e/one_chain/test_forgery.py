"""That the forgeries of `test_forged` would be seen."""

from __future__ import annotations

import pytest

from factorychain._core.keys import TxnKey
from tests.e2e.chain import Chain
from tests.e2e.forging import FORGED, THREAD, VICTIM, emit, txn_token
from tests.e2e.sockets import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_forgery_works_when_nothing_checks(chain: Chain) -> None:
    """The oracle: the same forgery with the engine's real key does reach the socket."""
    async with connected(chain.state.edge, chain.token(VICTIM.user)) as victim:
        await victim.result("subscribe", thread=THREAD, after=0)
        key = TxnKey.parse(chain.data.txn_key)
        await emit(chain, txn_token(key.private, key.kid, "r" + "a" * 24))
        await victim.wait_for(lambda f: FORGED in str(f))
