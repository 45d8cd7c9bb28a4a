"""Agents of Pydantic AI in a chain: unmodified, without a key, remembered, waiting for their users."""

from __future__ import annotations

import time

import pytest

from tests.e2e.chain import Chain
from tests.e2e.sockets import Frame, Socket, connected
from tests.vendor import Call, Fault, Turn, Vendor, VendorUsage

pytestmark = pytest.mark.asyncio(loop_scope="session")


def of_type(socket: Socket, run: str, kind: str) -> list[Frame]:
    return [each["data"] for each in socket.run_events(run) if each["type"] == kind]


async def test_an_agent_made_at_import_speaks_and_remembers(served: Chain, vendor: Vendor) -> None:
    vendor.script(
        Turn(reasoning=["hm"], calls=[Call("look", {"thing": "sky"})], usage=VendorUsage(20, 3)),
        Turn(text=["It is ", "blue."], usage=VendorUsage(30, 4)),
        Turn(text="Blue, I said."),
    )
    async with connected(served.state.edge, served.token("ada")) as socket:
        first = await socket.start("talker", "Which colour has the sky?", thread="sky")
        ending = await socket.ending(first["run"])
        second = await socket.start("talker", "Again?", thread="sky")
        last = await socket.ending(second["run"])
    assert ending["type"] == last["type"] == "agent_completed", ending
    (shown,) = of_type(socket, first["run"], "tool_completed")
    assert (shown["tool"], shown["result"]) == ("look", "the sky is blue")
    deltas = of_type(socket, first["run"], "message_delta")
    assert "".join(each["text"] for each in deltas) == ending["data"]["output"] == "It is blue."
    assert ending["data"]["message"] == deltas[0]["message"]
    assert of_type(socket, first["run"], "thinking_delta")[0]["text"] == "hm"
    # The gateway has counted; nobody has counted it again.
    assert ending["data"]["usage"] | {"cached_input_tokens": 0, "reasoning_tokens": 0} == {
        "input_tokens": 50, "output_tokens": 7, "requests": 2,
        "cached_input_tokens": 0, "reasoning_tokens": 0,
    }  # fmt: skip
    assert {each.key for each in vendor.requests[-3:]} == {vendor.key}
    assert vendor.requests[-1].tool_results == ["the sky is blue"]


async def test_a_run_waits_for_its_user_and_goes_on_in_another_process(
    served: Chain, vendor: Vendor
) -> None:
    calls = [
        Call("price", {"item": "tea"}, id="p1"),
        Call("buy", {"item": "tea"}, id="b1"),
        Call("buy", {"item": "gold"}, id="b2"),
        Call("locate", {}, id="l1"),
    ]
    vendor.script(Turn(calls=calls), Turn(text="Tea comes to Turin."))
    async with connected(served.state.edge, served.token("bob")) as socket:
        first = await socket.start("shopper", "Buy tea", thread="shop")
        ending = await socket.ending(first["run"])
        pending = {each["request"]: each for each in ending["data"]["pending"]}
        assert {id: (each["kind"], each["tool"]) for id, each in pending.items()} == {
            "b1": ("approval", "buy"), "b2": ("approval", "buy"), "l1": ("tool", "locate"),
        }  # fmt: skip
        assert pending["b1"]["arguments"] == {"item": "tea"}
        answers = {"b1": True, "b2": False, "l1": {"city": "Turin"}}
        for request, value in answers.items():
            goes_on = await socket.result("respond", run=first["run"], request=request, value=value)
        last = await socket.ending(goes_on["run"])
    assert last["type"] == "agent_completed", last
    assert last["data"]["output"] == "Tea comes to Turin."
    (price,) = of_type(socket, first["run"], "tool_completed")
    shown = {each["call"]: each for each in of_type(socket, goes_on["run"], "tool_completed")}
    assert shown["b1"]["result"]["bought"] == "tea"
    assert shown["b1"]["result"]["pid"] != price["result"]["pid"]
    assert (shown["b2"]["ok"], shown["b2"]["error"]["reason"]) == (False, "REFUSED")
    assert shown["l1"]["result"] == {"city": "Turin"}
    results = vendor.requests[-1].tool_results
    assert len(results) == 4
    assert '"city":"Turin"' in results[-1].replace(" ", "")


async def test_a_cancel_in_mid_stream_reaches_the_vendor_within_100_ms(
    served: Chain, vendor: Vendor
) -> None:
    vendor.script(Turn(text=["One ", "two ", "three"], fault=Fault(silent_after=6)))
    async with connected(served.state.edge, served.token("eve")) as socket:
        started = await socket.start("talker", "Count", thread="count")
        await socket.event(started["run"], "message_delta")
        at_s = time.monotonic()
        await socket.call("cancel", run=started["run"])
        request = vendor.requests[-1]
        await vendor.until(lambda: request.disconnected_at_s is not None)
        ending = await socket.ending(started["run"])
    assert ending["type"] == "agent_cancelled"
    assert (request.disconnected_at_s or at_s + 9) - at_s < 0.1


async def test_a_vendor_that_refuses_is_an_ending_with_a_reason(
    served: Chain, vendor: Vendor
) -> None:
    vendor.script(Turn(fault=Fault(status=400, message="a detail of the operator's")))
    async with connected(served.state.edge, served.token("kim")) as socket:
        started = await socket.start("talker", "Hello")
        ending = await socket.ending(started["run"])
    assert (ending["type"], ending["data"]["reason"]) == ("agent_failed", "MODEL_REQUEST_REFUSED")
    assert "detail" not in str(ending["data"])
    assert vendor.key not in served.log()


async def test_dependencies_are_the_runs_own_and_missing_ones_are_named(
    served: Chain, vendor: Vendor
) -> None:
    vendor.script(Turn(calls=[Call("first")]), Turn(text="Yours."))
    async with connected(served.state.edge, served.token("zoe")) as socket:
        started = await socket.start("reader", "What is there?")
        ending = await socket.ending(started["run"])
        refused = await socket.error("start", agent="orphan", input={"text": "go"})
    assert ending["type"] == "agent_completed", ending
    (shown,) = of_type(socket, started["run"], "tool_completed")
    assert shown["result"] == "the diary of zoe"
    assert refused["reason"] == "AGENT_DEPENDENCY_MISSING"
    assert "dict[str, int]" in refused["message"]


@pytest.mark.parametrize("name", ["talker", "shopper"])
async def test_a_budget_that_ends_in_mid_stream_is_the_ending(
    served: Chain, vendor: Vendor, name: str
) -> None:
    vendor.script(Turn(text=["many words " * 200] * 20, gap_s=0.02))
    async with connected(served.state.edge, served.token(f"rich-{name}")) as socket:
        started = await socket.start(name, "Talk")
        ending = await socket.ending(started["run"])
    assert (ending["type"], ending["data"]["reason"]) == ("agent_failed", "BUDGET_EXHAUSTED")
    assert of_type(socket, started["run"], "message_delta")
