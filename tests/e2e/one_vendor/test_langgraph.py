"""Graphs of LangGraph in a chain: unmodified, without a key, each run in a process, remembered."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time

import pytest

from tests.e2e.chain import Chain
from tests.e2e.sockets import Frame, Socket, connected
from tests.load import amount
from tests.vendor import Call, Turn, Vendor
from tests.vendor.script import Received

pytestmark = pytest.mark.asyncio(loop_scope="session")

USERS = amount(12, 50)
_CANARY = re.compile(r"canary-[0-9a-f]{16}")


def speak(request: Received) -> Turn:
    """A tool first, then what it said; or a tale without end."""
    said = request.last_user_text
    if request.messages[-1]["role"] == "tool":
        return Turn(text=["It ", "is ", request.tool_results[-1]])
    if said.startswith("tell"):
        return Turn(text=["and then "] * 2000, gap_s=0.01)
    tool = "confirm" if said.startswith("confirm") else "carry"
    return Turn(text=["Let me ", "see"], calls=[Call(tool, {"text": said})])


@pytest.fixture
def vendor(vendor: Vendor) -> Vendor:
    vendor.always = speak
    return vendor


def of_type(socket: Socket, run: str, kind: str) -> list[Frame]:
    return [each["data"] for each in socket.run_events(run) if each["type"] == kind]


def roles(request: Received) -> list[str]:
    return [each["role"] for each in request.messages]


async def test_a_graph_is_served_as_it_is(served: Chain, vendor: Vendor) -> None:
    async with connected(served.state.edge, served.token("ada")) as socket:
        started = await socket.start("nested", "tea")
        ending = await socket.ending(started["run"])
        events = socket.run_events(started["run"])
    # Neighbouring deltas of one message may travel as one.
    assert [kind for kind, _ in itertools.groupby(each["type"] for each in events)] == [
        "agent_started", "message_delta", "tool_executing", "custom", "tool_completed",
        "message_delta", "agent_completed",
    ]  # fmt: skip
    deltas = [each["data"]["text"] for each in events if each["type"] == "message_delta"]
    assert "".join(deltas) == "Let me seeIt is carried tea"
    assert {str(each.get("path")) for each in events[1:-1]} == {"['desk']"}
    assert ending["data"]["output"] == "It is carried tea"
    assert ending["data"]["message"] == events[-2]["data"]["message"]
    usage = ending["data"]["usage"]
    assert (usage["requests"], usage["input_tokens"], usage["output_tokens"]) == (2, 20, 10)
    assert {each.key for each in vendor.requests[-2:]} == {vendor.key}


async def test_an_interrupt_is_answered_in_another_process(served: Chain, vendor: Vendor) -> None:
    async with connected(served.state.edge, served.token("bob")) as socket:
        first = await socket.start("nested", "confirm rain", thread="t1")
        waiting = await socket.ending(first["run"])
        (asked,) = waiting["data"]["pending"]
        assert asked["prompt"] == "Really confirm rain?"
        answer = {"run": first["run"], "request": asked["request"], "value": "surely"}
        goes_on = await socket.result("respond", **answer)
        ending = await socket.ending(goes_on["run"])
        pids = [of_type(socket, each["run"], "custom")[0] for each in (first, goes_on)]
        calls = [of_type(socket, each["run"], "tool_completed") for each in (first, goes_on)]
    assert ending["data"]["output"] == "It is confirm rain: surely"
    assert pids[0]["data"]["pid"] != pids[1]["data"]["pid"]
    assert [each["error"]["reason"] for each in calls[0]] == ["INTERRUPTED"]
    assert [each["result"] for each in calls[1]] == ["confirm rain: surely"]
    assert roles(vendor.requests[-1]) == ["user", "assistant", "tool"]


async def test_the_next_process_remembers_and_a_replaced_turn_is_forgotten(
    served: Chain, vendor: Vendor
) -> None:
    turn = ["user", "assistant", "tool", "assistant"]
    async with connected(served.state.edge, served.token("eve")) as socket:
        for text in ("one", "two"):
            started = await socket.start("nested", text, thread="t1")
            await socket.ending(started["run"])
        assert roles(vendor.requests[-1]) == [*turn, *turn[:-1]]
        again = await socket.start("nested", "three", thread="t1", replaces=started["run"])
        ending = await socket.ending(again["run"])
    assert ending["data"]["output"] == "It is carried three"
    told = [each.get("content") for each in vendor.requests[-1].messages]
    assert told[:3] == ["one", "It is carried one", "three"]


async def test_a_cancel_in_mid_stream_is_seen_by_the_vendor(served: Chain, vendor: Vendor) -> None:
    async with connected(served.state.edge, served.token("kim")) as socket:
        started = await socket.start("nested", "tell", thread="t1")
        await socket.event(started["run"], "message_delta")
        at_s = time.monotonic()
        await socket.call("cancel", run=started["run"])
        request = vendor.requests[-1]
        await vendor.until(lambda: request.disconnected_at_s is not None)
        ending = await socket.ending(started["run"])
        assert ending["type"] == "agent_cancelled"
        assert (request.disconnected_at_s or at_s + 9) - at_s < 2.0
        after = await socket.start("nested", "tea", thread="t1")
        assert (await socket.ending(after["run"]))["data"]["output"] == "It is carried tea"
    assert roles(vendor.requests[-1]) == ["user", "user", "assistant", "tool"]


@pytest.mark.load
async def test_many_users_at_once_see_and_remember_only_themselves(
    served: Chain, vendor: Vendor
) -> None:
    canaries = {f"bird-{index}": f"canary-{secrets.token_hex(8)}" for index in range(USERS)}
    before = len(vendor.requests)
    texts = await asyncio.gather(*(two_turns(served, *each) for each in canaries.items()))
    for (user, own), seen in zip(canaries.items(), texts, strict=True):
        assert set(_CANARY.findall(seen)) == {own}, user
        assert vendor.key not in seen
    for request in vendor.requests[before:]:
        assert len(set(_CANARY.findall(str(request.messages)))) == 1
    assert len(vendor.requests) - before == USERS * 4
    assert vendor.key not in served.log()
    assert not any(_CANARY.search(line) for line in served.log().splitlines())


async def two_turns(served: Chain, user: str, canary: str) -> str:
    """The second one is told of the first by the graph's own memory. Everything that the socket said."""
    async with connected(served.state.edge, served.token(user)) as socket:
        for text in (canary, f"again {canary}"):
            started = await socket.start("nested", text, thread="t1", request_id=text[:5])
            ending = await socket.ending(started["run"], timeout_s=60)
            assert ending["data"]["output"] == f"It is carried {text}", ending
        return "".join(socket.texts)
