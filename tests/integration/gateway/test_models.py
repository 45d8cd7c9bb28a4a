"""Real clients in real run processes reach the vendor through the gateway, and never hold its key."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.integration.agents.conftest import Chain
from tests.integration.gateway.conftest import Start
from tests.vendor import Turn, Vendor, VendorUsage


def ending(events: list[Any]) -> Any:
    last = events[-1]
    return getattr(last, last.WhichOneof("event"))


def output(events: list[Any]) -> Any:
    return orjson.loads(ending(events).output_json)


def usage(events: list[Any]) -> tuple[int, ...]:
    found = ending(events).usage
    return (
        found.input_tokens,
        found.output_tokens,
        found.cached_input_tokens,
        found.reasoning_tokens,
        found.requests,
    )


async def test_every_client_finds_the_gateway_in_a_process(chain: Chain, vendor: Vendor) -> None:
    for agent in ("talker", "early", "threaded", "responder", "claude"):
        vendor.requests.clear()
        vendor.script(Turn(text=["Hel", "lo"], usage=VendorUsage(11, 7, 3, 2)))
        events = await chain.run(chain.token(agent), "hi")
        assert output(events) == "Hello", agent
        assert usage(events) == (11, 7, 3, 0 if agent == "claude" else 2, 1), agent
        (request,) = vendor.requests
        assert request.key == vendor.key
        assert "fc-run" not in str(request.headers)
