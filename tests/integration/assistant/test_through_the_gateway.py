"""The assistant in processes of its own, which reach the model through the gateway alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.types.v1.event_pb2 import Event
from tests.integration.agents.conftest import Chain, metadata, serving
from tests.vendor import Call, Fault, Turn, Vendor, VendorUsage
from tests.vendor.fixture import vendor

__all__ = ["vendor"]

MODULE = "tests.integration.assistant.samples"


@pytest.fixture
async def chain(
    tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chain]:
    monkeypatch.setenv("FACTORYCHAIN_LLM_MODEL", "gpt-test")
    fields: dict[str, Any] = {
        "llm_base_url": vendor.openai_url,
        "llm_api_key": vendor.key,
        "llm_retries": 0,
        "agent_processes": True,
        "idle_processes_min": 0,
    }
    async with serving(tmp_path, MODULE, isolation="process", **fields) as started:
        yield started


def kinds(events: list[Event]) -> list[str]:
    return [each.WhichOneof("event") or "" for each in events]


async def test_a_run_of_every_kind(chain: Chain, vendor: Vendor) -> None:
    """One start of the service serves them all."""
    await _tools_of_both_kinds_and_usage(chain, vendor)
    await _the_assistant_itself(chain, vendor)
    await _trouble_has_its_reason(chain, vendor)
    await _a_cancel_hangs_up_at_once(chain, vendor)


async def _tools_of_both_kinds_and_usage(chain: Chain, vendor: Vendor) -> None:
    both = [Call("shout", {"text": "hi"}), Call("sum_add", {"a": 20, "b": 22})]
    vendor.script(
        Turn(calls=both, usage=VendorUsage(10, 5)),
        Turn(text=["HI, ", "42"], usage=VendorUsage(20, 7, cached=4, reasoning=2)),
    )
    ctx = chain.token("clerk", principal=Principal("acme", "ada"))
    events = await chain.run(ctx, "go on")
    ending = events[-1].agent_completed
    assert kinds(events)[-1] == "agent_completed", events[-1]
    assert orjson.loads(ending.output_json) == "HI, 42"
    usage = ending.usage
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (30, 12, 2)
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (4, 2)
    assert vendor.requests[-1].tool_results == ["HI", "42"]
    assert {each.key for each in vendor.requests} == {vendor.key}
    assert vendor.key not in str(events)


async def _the_assistant_itself(chain: Chain, vendor: Vendor) -> None:
    vendor.script(Turn(text=["Hel", "lo"], reasoning=["hm"]))
    events = await chain.run(chain.token("assistant"), "hi")
    assert kinds(events) == [
        "agent_started",
        "agent_thinking",
        "thinking_delta",
        *["message_delta"] * kinds(events).count("message_delta"),
        "agent_completed",
    ]
    assert vendor.requests[-1].tools == []


async def _trouble_has_its_reason(chain: Chain, vendor: Vendor) -> None:
    for turn, reason in (
        (Turn(fault=Fault(status=401)), "MODEL_CREDENTIAL_REFUSED"),
        (Turn(fault=Fault(status=429, retry_after="60")), "MODEL_RATE_LIMITED"),
        (Turn(text=["a", "b", "c"], fault=Fault(cut_after=2)), "MODEL_UNAVAILABLE"),
    ):
        vendor.script(turn)
        failed = (await chain.run(chain.token("assistant"), "hi"))[-1].agent_failed
        assert failed.reason == reason
        assert "vendor" not in failed.message


async def _a_cancel_hangs_up_at_once(chain: Chain, vendor: Vendor) -> None:
    vendor.script(Turn(text=["a "] * 1000, gap_s=0.02))
    ctx = chain.token("assistant")
    call = chain.execute(ctx, "hi")
    await anext(aiter(call))
    await chain.log.wait_for(lambda: "message_delta" in chain.log.kinds(ctx.run))
    told_s = time.monotonic()
    await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(ctx))
    await vendor.until(lambda: vendor.requests[-1].disconnected_at_s is not None)
    assert (vendor.requests[-1].disconnected_at_s or 0) - told_s < 2.0  # bench measures it
    assert [each.WhichOneof("life") async for each in call][-1] == "finished"
    assert kinds(chain.log.events(ctx.run))[-1] == "agent_cancelled"
