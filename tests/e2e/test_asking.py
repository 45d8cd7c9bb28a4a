"""Agents that ask their users, through the whole chain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from factorychain._core.ids import Principal, resumed_run_id
from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import Closed, Frame, Socket, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def brief(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """A chain whose runs may take three seconds, and whose services this module kills."""
    env = {"FACTORYCHAIN_RUN_LIFETIME_S": "3", "FACTORYCHAIN_CLEANUP_INTERVAL_S": "0.2"}
    async with running_chain(tmp_path_factory.mktemp("brief"), env=env) as running:
        yield running


async def asked(socket: Socket, run: str) -> Frame:
    event = await socket.event(run, "input_requested")
    data: Frame = event["data"]
    return data


async def test_a_bad_answer_is_refused_a_good_one_reaches_the_agent(chain: Chain) -> None:
    async with (
        connected(chain.state.edge, chain.token("ann")) as ann,
        connected(chain.state.edge, chain.token("ben")) as ben,
    ):
        anns = (await ann.start("asks", "number", thread="asked"))["run"]
        bens = (await ben.start("asks", "number", thread="asked"))["run"]
        question = await asked(ann, anns)
        assert (question["kind"], question["prompt"]) == ("question", "How many?")
        assert question["schema"] == {"type": "integer"}
        assert (await asked(ben, bens))["request"] == question["request"] == "q1"
        error = await ann.error("respond", run=anns, request="q1", value="nine")
        assert (error["reason"], list(error["fields"])) == ("INVALID_FIELD", ["value"])
        unknown = await ann.error("respond", run=anns, request="q9", value=9)
        assert (unknown["code"], unknown["names"]) == ("NOT_FOUND", ["q1"])
        # The same id, and another user's run.
        foreign = await ben.error("respond", run=anns, request="q1", value=9)
        assert (foreign["code"], foreign["reason"]) == ("NOT_FOUND", "RUN_NOT_FOUND")
        assert (await ann.result("respond", run=anns, request="q1", value=9))["run"] == anns
        assert (await ann.ending(anns))["data"]["output"] == 9
        # Again, as a client does whose reply was lost; and with another value.
        assert (await ann.result("respond", run=anns, request="q1", value=9))["run"] == anns
        other = await ann.error("respond", run=anns, request="q1", value=8)
        assert other["reason"] == "REQUEST_ANSWERED"
        await ben.result("respond", run=bens, request="q1", value=1)
        assert (await ben.ending(bens))["data"]["output"] == 1
    kinds = [each["type"] for each in ann.run_events(anns)]
    assert kinds == ["agent_started", "input_requested", "input_received", "agent_completed"]
    assert [each for each in ben.events() if each["run"] == anns] == []


async def test_secrets_in_questions_and_answers_are_redacted_and_reach_the_agent(
    chain: Chain,
) -> None:
    secret = "AKIA" + "IOSFODNN7EXAMPLQ"
    async with connected(chain.state.edge, chain.token("ann")) as ann:
        run = (await ann.start("asks", f"echo {secret}", thread="redacted"))["run"]
        await asked(ann, run)
        await ann.result("respond", run=run, request="q1", value={"key": secret})
        assert (await ann.ending(run))["data"]["output"] == "the same"
        await ann.result("thread", thread="redacted")
    assert secret not in "".join(t for t in ann.texts if f'"{run}"' in t and '"op":"events"' in t)


async def test_a_cancel_while_asking_ends_the_run_at_once(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("ann")) as ann:
        run = (await ann.start("asks", "number", thread="cancelled-asking"))["run"]
        await asked(ann, run)
        await ann.result("cancel", run=run)
        await ann.ending(run)
        events = ann.run_events(run)
    assert [each["type"] for each in events[-2:]] == ["input_received", "agent_cancelled"]
    assert events[-2]["data"] == {"request": "q1", "value": None, "closed": "CANCELLED"}


async def test_an_interrupted_run_goes_on_in_the_next_one(chain: Chain) -> None:
    ann_is = Principal("default", "ann")
    async with connected(chain.state.edge, chain.token("ann")) as ann:
        run = (await ann.start("asks", "stop", thread="interrupted"))["run"]
        pending = (await ann.ending(run))["data"]["pending"]
        assert [(each["request"], each["kind"]) for each in pending] == [
            ("city", "question"),
            ("sure", "approval"),
        ]
    # From another socket, which follows nothing yet.
    async with connected(chain.state.edge, chain.token("ann")) as ann:
        first = await ann.result("respond", run=run, request="city", value="Turin")
        assert (first["run"], first["open"]) == (run, ["sure"])
        last = await ann.result("respond", run=run, request="sure", value=True)
        assert last["run"] == resumed_run_id(ann_is, run)
        ending = await ann.ending(last["run"])
        assert ending["data"]["output"]["answers"] == {"city": "Turin", "sure": True}
        assert ending["data"]["output"]["pid"] != 0
        started = ann.run_events(last["run"])[0]
        assert (started["seq"], started["data"]["resumes"]) == (last["after"] + 1, run)
        again = await ann.result("respond", run=run, request="sure", value=True)
        assert (again["run"], again["existing"]) == (last["run"], True)
        record = (await ann.result("thread", thread="interrupted"))["runs"]
    assert [each["resumes"] for each in record] == ["", run]
    assert {each["request"]: each["value"] for each in record[0]["answers"]} == {
        "city": "Turin",
        "sure": True,
    }


async def test_questions_outlive_the_lifetime_of_their_run_and_the_death_of_every_process(
    brief: Chain,
) -> None:
    """A run that waits for its user lives in its agents; one that ended with requests in none."""
    async with connected(brief.state.edge, brief.token("ann")) as ann:
        stopped = await _stopped(ann, "stopped")
        half = await _stopped(ann, "half")
        await ann.result("respond", run=half, request="city", value="Bari")
        run = (await ann.start("asks", "number", thread="long"))["run"]
        await asked(ann, run)
        late = await ann.start("asks", "late", thread="late")
        await asked(ann, late["run"])
        for layer in ("engine", "emitter", "bridge"):
            await _killed(brief, layer)
        await ann.closed()  # with its bridge
    async with _joined_again(brief, "ann", "long", "late", "stopped", "half") as ann:
        # Longer than the lifetime of the first one.
        assert (await ann.ending(late["run"]))["data"]["output"] == "nobody answered"
        received = next(e for e in ann.run_events(late["run"]) if e["type"] == "input_received")
        assert received["data"]["closed"] == "EXPIRED"
        assert [each["type"] for each in ann.run_events(run)][-1] == "input_requested"
        reply = await _answered(ann, run, "q1", 3)
        assert reply["run"] == run
        assert (await ann.ending(run))["data"]["output"] == 3
        await _killed(brief, "agents")
        first = await _answered(ann, stopped, "city", "Turin")
        assert (first["run"], first["open"]) == (stopped, ["sure"])
        for asking, city in ((stopped, "Turin"), (half, "Bari")):
            await _goes_on(ann, asking, city)


async def _stopped(ann: Socket, thread: str) -> str:
    """A run that has ended with requests."""
    run: str = (await ann.start("asks", "stop", thread=thread))["run"]
    assert len((await ann.ending(run))["data"]["pending"]) == 2
    return run


async def _killed(chain: Chain, layer: str) -> None:
    old = chain.pid(layer)
    os.kill(old, signal.SIGKILL)
    await chain.restarted(layer, old)


async def _goes_on(ann: Socket, asking: str, city: str) -> None:
    """The last answer of a run that ended with requests starts the next one, which has all of them."""
    last = await _answered(ann, asking, "sure", True)
    assert last["run"] == resumed_run_id(Principal("default", "ann"), asking)
    output = (await ann.ending(last["run"]))["data"]["output"]
    assert output["answers"] == {"city": city, "sure": True}
    for run in (asking, last["run"]):
        assert [e["type"] for e in ann.run_events(run)] == ["agent_started", "agent_completed"]


@contextlib.asynccontextmanager
async def _joined_again(chain: Chain, user: str, *threads: str) -> AsyncIterator[Socket]:
    """A socket that has joined threads from their beginning on, once the new edge serves."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(60):
            while True:
                try:
                    socket = await stack.enter_async_context(
                        connected(chain.state.edge, chain.token(user))
                    )
                    for each in threads:
                        await socket.result("subscribe", thread=each, after=0)
                    break
                except (OSError, Closed, AssertionError):
                    await stack.aclose()
                    await asyncio.sleep(0.2)
        yield socket


async def _answered(socket: Socket, run: str, request: str, value: object) -> Frame:
    """The reply to an answer, once engine and agents serve again."""
    while True:
        reply = await socket.call("respond", run=run, request=request, value=value)
        if "result" in reply:
            result: Frame = reply["result"]
            return result
        if reply["error"]["code"] != "UNAVAILABLE":
            raise AssertionError(reply)
