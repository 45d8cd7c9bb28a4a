"""Budgets hold in the middle of a stream, over the runs of a user, and over the users of a tenant."""

from __future__ import annotations

import pytest

from factorychain._core.ids import Principal
from tests.integration.gateway.conftest import Start
from tests.integration.gateway.reading import failure, output, said, usage
from tests.vendor import Fault, Turn, Vendor, VendorUsage

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("agent", ["talker", "responder_here", "claude_here"])
async def test_a_budget_that_is_used_up_in_mid_stream_ends_stream_and_run(
    start: Start, vendor: Vendor, agent: str
) -> None:
    vendor.script(
        Turn(text=["four"] * 200, gap_s=0.002, usage=VendorUsage(1, 200)),
        Turn(text="never asked"),
    )
    async with start(llm_run_max_tokens=20) as chain:
        events = await chain.run(chain.token(agent), "hi")
        await vendor.until(lambda: vendor.requests[0].disconnected_at_s is not None)
    failed = failure(events)
    assert (failed.reason, failed.retryable) == ("BUDGET_EXHAUSTED", False)
    assert "budget" in failed.message
    assert 10 <= len(said(events)) // 4 <= 30, "what was within the budget has been passed on"
    assert 20 <= sum(usage(events)[:2]) <= 40
    assert vendor.requests[0].frames < 60, "the vendor was stopped, not only the client"
    assert len(vendor.requests) == 1


async def test_requests_of_a_run_are_counted(start: Start, vendor: Vendor) -> None:
    async with start(llm_run_max_requests=3) as chain:
        assert output(await chain.run(chain.token("repeater"), "3")) == 3
        failed = failure(await chain.run(chain.token("repeater"), "4"))
    assert failed.reason == "BUDGET_EXHAUSTED"
    assert len(vendor.requests) == 6


async def test_tokens_of_a_user_are_counted_over_runs_and_renewed(
    start: Start, vendor: Vendor
) -> None:
    ada, bob = Principal("acme", "ada"), Principal("acme", "bob")
    vendor.always = lambda request: Turn(text="a", usage=VendorUsage(30, 30))
    async with start(llm_user_max_tokens=100, llm_budget_window_s=1e6) as chain:
        for _ in range(2):
            assert output(await chain.run(chain.token("talker", principal=ada))) == "a"
        failed = failure(await chain.run(chain.token("talker", principal=ada)))
        assert output(await chain.run(chain.token("talker", principal=bob))) == "a"
    assert (failed.reason, failed.retryable) == ("BUDGET_EXHAUSTED", True)
    assert 0 < failed.retry_after_s <= 1e6
    assert len(vendor.requests) == 3


async def test_users_of_a_tenant_share_its_budget(start: Start, vendor: Vendor) -> None:
    async with start(llm_tenant_max_requests=2) as chain:
        for user in ("ada", "bob"):
            token = chain.token("talker", principal=Principal("acme", user))
            assert output(await chain.run(token)) == "You said: hi"
        third = chain.token("talker", principal=Principal("acme", "eve"))
        other = chain.token("talker", principal=Principal("other", "eve"))
        assert failure(await chain.run(third)).reason == "BUDGET_EXHAUSTED"
        assert output(await chain.run(other)) == "You said: hi"


async def test_hanging_up_before_the_vendor_has_counted_costs_what_it_costs(
    start: Start, vendor: Vendor
) -> None:
    """Else an agent would have any number of answers, all but their last words."""
    vendor.always = lambda request: Turn(text=["four"] * 9, fault=Fault(silent_after=8))
    async with start(llm_run_max_tokens=60) as chain:
        events = await chain.run(chain.token("leaver"), "x" * 40)
    assert failure(events).reason == "BUDGET_EXHAUSTED"
    assert 3 <= len(vendor.requests) <= 4


async def test_models_that_are_not_allowed_are_refused_and_not_listed(
    start: Start, vendor: Vendor
) -> None:
    vendor.models = ("small-1", "big-1")
    async with start(llm_models=("small-*",)) as chain:
        assert output(await chain.run(chain.token("chooser"), "small-2")) == "You said: hi"
        refused = failure(await chain.run(chain.token("chooser"), "big-1"))
        listed = await chain.run(chain.token("lister"))
    assert (refused.reason, refused.retryable) == ("MODEL_NOT_ALLOWED", False)
    assert output(listed) == ["small-1"]
    assert [each.path for each in vendor.requests] == ["/v1/chat/completions", "/v1/models"]


async def test_a_server_that_does_not_know_stream_options_is_not_sent_them(
    start: Start, vendor: Vendor
) -> None:
    async with start(llm_stream_usage=False) as chain:
        events = await chain.run(chain.token("talker"), "x" * 400)
    assert "stream_options" not in vendor.requests[0].body
    assert usage(events)[0] >= 100
    assert usage(events)[1] >= 100
