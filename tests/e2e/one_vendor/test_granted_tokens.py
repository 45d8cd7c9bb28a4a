"""Tokens of models that the operator's file grants are what the gateway refuses beyond."""

from __future__ import annotations

import pytest

from tests.e2e.chain import Chain
from tests.e2e.sockets import Frame, connected
from tests.vendor import Turn, Vendor, VendorUsage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _asked(served: Chain, token: str) -> Frame:
    """The ending of a run that spends sixty tokens."""
    async with connected(served.state.edge, token) as socket:
        started = await socket.start("talker", "Hello")
        return await socket.ending(started["run"])


def _is_refused(ending: Frame) -> bool:
    if ending["type"] == "agent_completed":
        return False
    assert ending["data"]["reason"] == "BUDGET_EXHAUSTED", ending
    assert ending["data"]["retryable"]
    return True


async def test_a_user_gets_no_more_than_the_plan_that_their_token_names_grants(
    served: Chain, vendor: Vendor
) -> None:
    vendor.always = lambda _: Turn(text="a", usage=VendorUsage(30, 30))
    thrifty = served.token("thrifty", plan="small")
    lavish = served.token("lavish")
    assert [_is_refused(await _asked(served, thrifty)) for _ in range(3)] == [False, False, True]
    assert [_is_refused(await _asked(served, lavish)) for _ in range(3)] == [False] * 3
    assert len(vendor.requests) == 5


async def test_the_users_of_a_tenant_share_what_it_is_granted(
    served: Chain, vendor: Vendor
) -> None:
    vendor.always = lambda _: Turn(text="a", usage=VendorUsage(30, 30))
    users = [served.token(user, "club") for user in ("ann", "ben", "cleo")]
    assert [_is_refused(await _asked(served, each)) for each in users] == [False, False, True]
    assert not _is_refused(await _asked(served, served.token("cleo", "another-club")))
    assert len(vendor.requests) == 3
