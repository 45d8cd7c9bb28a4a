"""Agents that ask their users, through the whole chain."""

from __future__ import annotations

import pytest

from factorychain._core.ids import Principal, resumed_run_id
from tests.e2e.chain import Chain
from tests.e2e.sockets import asked, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
