"""Answers of users on real sockets: to a run that goes on, and to one that another goes on for."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from factorychain._core.ids import Principal, resumed_run_id
from factorychain.client import Client
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import InvalidField, RequestNotFound, ThreadBusy
from tests.integration.edge.chain import Chain
from tests.integration.edge.people import EPOCH, A, token
from tests.integration.edge.test_client import complete
from tests.integration.edge.test_js_client import CLIENT, NODE

ASKED = "r" + "a" * 24


def goes_on(chain: Chain, *said: str, existing: bool = False) -> str:
    """From now on the next answer starts a run, which speaks before the engine has answered."""
    run = resumed_run_id(A, ASKED)
    after = chain.hub.log[(A, "t1")][-1].last_seq if (A, "t1") in chain.hub.log else 0

    def answered(user: Principal, request: pb.RespondToRunRequest) -> pb.RespondToRunResponse:
        if not existing:
            chain.hub.say(user, "t1", run, *said)
        return pb.RespondToRunResponse(
            run=run, thread="t1", epoch=EPOCH, after=after, existing=existing
        )

    chain.engine.on_answer = answered
    return run


async def test_an_answer_reaches_the_engine_and_nothing_is_subscribed(chain: Chain) -> None:
    peer = await chain.login()
    reply = await peer.ask(op="respond", id="1", run=ASKED, request="q1", value={"a": None})
    assert reply["result"]["run"] == ASKED
    assert chain.engine.answers == [(ASKED, "q1", '{"a":null}')]
    assert chain.hub.open_subscriptions() == 0


async def test_the_reply_precedes_the_events_of_the_run_that_goes_on(chain: Chain) -> None:
    chain.hub.say(A, "t1", ASKED, "before")
    peer = await chain.login()
    run = goes_on(chain, "one", "two")
    reply = await peer.ask(op="respond", id="1", run=ASKED, request="q1", value=True)
    assert (reply["id"], reply["result"]["run"]) == ("1", run)
    events = await peer.next()
    assert [(each["seq"], each["data"]["text"]) for each in events["events"]] == [
        (2, "one"),
        (3, "two"),
    ]
    assert chain.hub.open_subscriptions() == 1


async def test_so_it_does_where_the_thread_is_followed_already(chain: Chain) -> None:
    peer = await chain.login()
    assert (await peer.ask(op="subscribe", id="s", thread="t1"))["id"] == "s"
    assert (await peer.next())["op"] == "caught_up"
    run = goes_on(chain, "mine")
    reply = await peer.ask(op="respond", id="1", run=ASKED, request="q1", value=True)
    assert (reply.get("id"), reply["result"]["run"]) == ("1", run)
    assert (await peer.next())["events"][0]["data"]["text"] == "mine"
    assert chain.hub.open_subscriptions() == 1


async def test_a_refused_answer_holds_back_nothing_afterwards(chain: Chain) -> None:
    peer = await chain.login()
    assert (await peer.ask(op="subscribe", id="s", thread="t1"))["id"] == "s"
    assert (await peer.next())["op"] == "caught_up"
    chain.engine.failure = ThreadBusy("r2345")
    reply = await peer.ask(op="respond", id="1", run=ASKED, request="q1", value=True)
    assert reply["error"]["reason"] == "THREAD_BUSY"
    chain.hub.say(A, "t1", resumed_run_id(A, ASKED), "later")
    assert (await peer.next())["events"][0]["data"]["text"] == "later"


async def test_the_client_gives_the_run_that_goes_on(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        assert await client.respond(ASKED, "q1", 3) is None
        run = goes_on(chain, "and so")
        found = await client.respond(ASKED, "q1", "four")
        assert found is not None
        assert found.id == run
        complete(chain, "t1", run)
        assert await asyncio.wait_for(found.result(), 30) == "done"
        # The same answer again finds the same run, with all that it has said.
        goes_on(chain, existing=True)
        chain.engine.on_answer = lambda user, request: pb.RespondToRunResponse(
            run=run, thread="t1", epoch=EPOCH, existing=True
        )
        again = await client.respond(ASKED, "q1", "four")
        assert again is not None
        assert [event.type async for event in again] == ["agent_thinking", "agent_completed"]


async def test_what_is_refused_is_a_typed_error(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        for error in (InvalidField("value", "3 is not of type 'string'"), RequestNotFound(["q2"])):
            chain.engine.failure = error
            with pytest.raises(type(error)) as caught:
                await client.respond(ASKED, "q1", 3)
            assert caught.value.message == error.message
        assert isinstance(caught.value, RequestNotFound)
        assert caught.value.names == ("q2",)


PROGRAM = """
import { Client } from %(client)s;
const say = (...what) => console.log(JSON.stringify(what));
const client = new Client(%(url)s, () => %(token)s);
await client.connect();
const same = await client.respond(%(asked)s, "q1", { a: 1 });
say(same.run, same.ended === undefined);
const next = await client.respond(%(asked)s, "q2", true, { onEvent: (event) => say(event.type) });
say(next.run);
say((await next.ended).data.output);
client.close();
"""


@pytest.mark.skipif(NODE is None, reason="there is no node here")
async def test_so_does_the_client_in_javascript(chain: Chain) -> None:
    run = resumed_run_id(A, ASKED)

    def answered(user: Principal, request: pb.RespondToRunRequest) -> pb.RespondToRunResponse:
        if request.request == "q1":
            return pb.RespondToRunResponse(run=ASKED, thread="t1")
        chain.hub.say(user, "t1", run, "one")
        complete(chain, "t1", run)
        return pb.RespondToRunResponse(run=run, thread="t1", epoch=EPOCH)

    chain.engine.on_answer = answered
    texts = {
        "client": CLIENT.resolve().as_uri(),
        "url": chain.url,
        "token": token(),
        "asked": ASKED,
    }
    program = PROGRAM % {name: orjson.dumps(text).decode() for name, text in texts.items()}
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE,
        "--experimental-websocket",
        "--input-type=module",
        "--eval",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    said = [orjson.loads(line) for line in out.splitlines()]
    # The reply comes before the events; what waits for it may have its turn after they are shown.
    assert said[0] == [ASKED, True]
    assert said.count([run]) == 1
    others = [each for each in said[1:] if each != [run]]
    assert others == [["agent_thinking"], ["agent_completed"], ["done"]]
    assert chain.engine.answers == [(ASKED, "q1", '{"a":1}'), (ASKED, "q2", "true")]
