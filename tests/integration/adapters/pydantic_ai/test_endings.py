"""How runs end that do not go well."""

from __future__ import annotations

import time

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, UsageLimits

from factorychain import AgentError
from factorychain.adapters.pydantic_ai import agent
from factorychain.testing import run_async
from tests.integration.adapters.pydantic_ai.models import Models, outline
from tests.vendor import Call, Fault, Turn, Vendor


class Trip(BaseModel):
    city: str
    days: int


@pytest.mark.parametrize(
    ("fault", "reason", "retryable"),
    [
        (Fault(status=401), "MODEL_CREDENTIAL_REFUSED", False),
        (Fault(status=404), "MODEL_NOT_FOUND", False),
        (Fault(status=400), "MODEL_REQUEST_REFUSED", False),
        (Fault(status=429, retry_after="7"), "MODEL_RATE_LIMITED", True),
        (Fault(status=503), "MODEL_UNAVAILABLE", True),
        (Fault(refuse=True), "MODEL_UNAVAILABLE", True),
        (Fault(cut_after=2), "MODEL_STREAM_BROKEN", True),
        (Fault(error_after=2), "MODEL_STREAM_BROKEN", True),
    ],
)
async def test_a_vendor_in_trouble_is_an_ending_without_its_text(
    vendor: Vendor, model: Models, fault: Fault, reason: str, retryable: bool
) -> None:
    vendor.always = lambda request: Turn(text=["a", "b", "c"], fault=fault)
    served = Agent(model(max_retries=0))
    ending = (await run_async(served, "go")).ending
    assert (ending.type, ending.data["reason"]) == ("agent_failed", reason)
    assert ending.data["retryable"] is retryable
    assert "the vendor has a problem" not in str(ending.data)
    if fault.retry_after:
        assert ending.data["retry_after_s"] == 7


async def test_a_limit_of_usage_ends_the_run(vendor: Vendor, model: Models) -> None:
    served = Agent(model())

    @served.tool_plain
    def again() -> str:
        return "more"

    vendor.always = lambda request: Turn(calls=[Call("again")])
    limited = agent(served, name="limited", usage_limits=UsageLimits(request_limit=2))
    assert outline(await run_async(limited, "go"))[-1] == "failed USAGE_LIMIT"
    assert len(vendor.requests) == 2


async def test_a_model_that_never_answers_in_the_right_form_ends_the_run(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model(), output_type=Trip)
    vendor.always = lambda request: Turn(calls=[Call("final_result", {"city": 1})])
    assert outline(await run_async(served, "go")) == ["failed MODEL_MISBEHAVED"]


async def test_an_agent_error_of_a_tool_is_the_runs_ending(vendor: Vendor, model: Models) -> None:
    served = Agent(model())

    @served.tool_plain
    def buy() -> str:
        raise AgentError("The shop is closed", reason="CLOSED")

    vendor.script(Turn(calls=[Call("buy")]))
    ending = (await run_async(served, "go")).ending
    assert (ending.data["reason"], ending.data["message"]) == ("CLOSED", "The shop is closed")


async def test_a_cancel_in_mid_stream_reaches_the_vendor_at_once(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())
    vendor.script(Turn(text=["a", "b", "c"], fault=Fault(silent_after=3)))
    result = await run_async(served, "go", timeout_s=0.5)
    cancelled_at_s = time.monotonic()
    (request,) = vendor.requests
    await vendor.until(lambda: request.disconnected_at_s is not None)
    assert result.ending.type == "agent_cancelled"
    assert (request.disconnected_at_s or 0) - cancelled_at_s < 0.1
