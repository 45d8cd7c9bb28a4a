"""The WebSocket protocol on real sockets, operation by operation."""

from __future__ import annotations

from typing import Any

import pytest

from factorychain._core.ids import run_id_for, thread_id_for
from factorychain.errors import Capacity, ChainDegraded, UserEngineLimit
from tests.integration.edge.chain import Chain
from tests.integration.edge.people import EPOCH, A, B, token
from tests.waiting import until_true


async def test_ready_says_whose_socket_it_is(chain: Chain) -> None:
    peer = await chain.connect()
    assert peer.ws.protocol == "factorychain.v1.json"
    ready = await peer.ask(op="auth", token=token())
    assert (ready["op"], ready["tenant"], ready["user"]) == ("ready", "default", "ana")
    assert ready["heartbeat_s"] == 25
    assert ready["limits"]["subscriptions"] == 64
    assert ready["expires_at"].endswith("Z")


async def test_the_reply_to_a_start_precedes_the_events_of_its_run(chain: Chain) -> None:
    peer = await chain.login()
    # The run's first events are out before the engine has answered.
    chain.engine.on_start = lambda user, thread, run: chain.hub.say(user, thread, run, "one", "two")
    reply = await peer.ask(op="start", id="1", input={"text": "hi"}, thread="t1", request_id="q1")
    run = run_id_for(A, "q1")
    assert reply["op"] == "reply"
    assert reply["id"] == "1"
    result = reply["result"]
    assert (result["run"], result["thread"], result["epoch"], result["after"]) == (
        run,
        "t1",
        EPOCH,
        0,
    )
    events = await peer.next()
    assert (events["op"], events["thread"], events["epoch"]) == ("events", "t1", EPOCH)
    assert [(each["seq"], each["run"], each["type"]) for each in events["events"]] == [
        (1, run, "agent_thinking"),
        (2, run, "agent_thinking"),
    ]


async def test_a_start_in_a_thread_that_is_followed_already_has_its_reply_first(
    chain: Chain,
) -> None:
    peer = await chain.login()
    assert (await peer.ask(op="subscribe", id="s", thread="t1"))["id"] == "s"
    assert (await peer.next())["op"] == "caught_up"
    chain.engine.gate.clear()
    await peer.send(op="start", id="1", input={"text": "x"}, thread="t1", request_id="q")
    await peer.send(op="ping", id="p")
    assert (await peer.next())["id"] == "p"  # a slow start holds up nothing
    chain.hub.say(A, "t1", "another", "before")
    assert (await peer.next())["events"][0]["data"]["text"] == "before"
    chain.hub.say(A, "t1", run_id_for(A, "q"), "mine")
    chain.engine.gate.set()
    assert (await peer.next())["id"] == "1"
    assert (await peer.next())["events"][0]["data"]["text"] == "mine"
    assert chain.hub.open_subscriptions() == 1


async def test_a_start_without_thread_or_request_id_gets_both(chain: Chain) -> None:
    peer = await chain.login()
    chain.engine.on_start = lambda user, thread, run: chain.hub.say(user, thread, run, "hi")
    result = (await peer.ask(op="start", id="1", input={"text": "hi"}))["result"]
    (sent,) = chain.engine.starts
    assert sent.request_id
    assert sent.thread == thread_id_for(result["run"]) == result["thread"]
    assert (await peer.next())["op"] == "events"


async def test_everything_of_a_start_reaches_the_engine(chain: Chain) -> None:
    peer = await chain.login()
    await peer.ask(
        op="start",
        id="1",
        agent="researcher",
        input={"text": "hi", "data": [1]},
        on_busy="interrupt",
        context=[{"description": "d", "value": "v"}],
        metadata={"k": 1},
        replaces="r1",
        unheard_of="ignored",
    )
    (sent,) = chain.engine.starts
    assert (sent.agent, sent.input_json, sent.on_busy) == (
        "researcher",
        '{"text":"hi","data":[1]}',
        3,
    )
    assert (sent.context[0].value, sent.metadata_json, sent.replaces) == ("v", '{"k":1}', "r1")


async def test_a_start_begins_a_new_trace(chain: Chain) -> None:
    peer = await chain.login(headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    await peer.ask(op="start", id="1", input={"text": "hi"})
    assert "a" * 32 not in chain.engine.traces[0]


async def test_a_refused_start_says_when_to_come_back_and_leaves_nothing(chain: Chain) -> None:
    peer = await chain.login()
    chain.engine.failure = UserEngineLimit(2, retry_after_s=3)
    reply = await peer.ask(op="start", id="1", input={"text": "hi"})
    error = reply["error"]
    assert (error["code"], error["reason"], error["retry_after_s"]) == (
        "RESOURCE_EXHAUSTED",
        "USER_ENGINE_LIMIT",
        3,
    )
    assert chain.hub.open_subscriptions() == 0


async def test_the_same_start_again_replays_the_run_that_it_found(chain: Chain) -> None:
    run = run_id_for(A, "q")
    chain.hub.say(A, "t1", run, "one", "two")
    chain.engine.existing = True
    peer = await chain.login()
    reply = await peer.ask(op="start", id="1", input={"text": "x"}, thread="t1", request_id="q")
    assert reply["result"]["existing"] is True
    assert [each["seq"] for each in (await peer.next())["events"]] == [1, 2]
    assert await peer.next() == {"op": "caught_up", "thread": "t1", "seq": 2}
    chain.hub.say(A, "t1", run, "three")
    assert [each["seq"] for each in (await peer.next())["events"]] == [3]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
async def test_subscribing_delivers_what_comes_after_a_position(chain: Chain, after: int) -> None:
    chain.hub.say(A, "t1", "r1", "1", "2")
    chain.hub.say(A, "t1", "r1", "3", "4")
    peer = await chain.login()
    reply = await peer.ask(op="subscribe", id="2", thread="t1", after=after, epoch=EPOCH)
    assert reply == {
        "op": "reply",
        "id": "2",
        "result": {"first": 1, "last": 4, "epoch": EPOCH, "active_run": ""},
    }
    seqs: list[int] = []
    while (frame := await peer.next())["op"] == "events":
        seqs += [each["seq"] for each in frame["events"]]
    assert seqs == list(range(after + 1, 5))
    assert frame == {"op": "caught_up", "thread": "t1", "seq": 4}


async def test_an_empty_thread_can_be_subscribed_to(chain: Chain) -> None:
    peer = await chain.login()
    reply = await peer.ask(op="subscribe", id="2", thread="nothing")
    assert reply["result"] == {"first": 0, "last": 0, "epoch": 0, "active_run": ""}
    assert await peer.next() == {"op": "caught_up", "thread": "nothing", "seq": 0}


async def test_a_wrong_epoch_is_reset_then_everything(chain: Chain) -> None:
    chain.hub.say(A, "t1", "r1", "1", "2")
    peer = await chain.login()
    await peer.ask(op="subscribe", id="2", thread="t1", after=2, epoch=5)
    assert await peer.next() == {
        "op": "reset",
        "thread": "t1",
        "epoch": EPOCH,
        "reason": "EPOCH_CHANGED",
    }
    assert [each["seq"] for each in (await peer.next())["events"]] == [1, 2]


async def test_after_unsubscribe_nothing_more_comes(chain: Chain) -> None:
    peer = await chain.login()
    await peer.ask(op="subscribe", id="1", thread="t1")
    assert (await peer.next())["op"] == "caught_up"
    assert (await peer.ask(op="unsubscribe", id="2", thread="t1"))["result"] == {}
    chain.hub.say(A, "t1", "r1", "unheard")
    assert (await peer.ask(op="ping", id="3"))["id"] == "3"
    assert chain.hub.open_subscriptions() == 0


async def test_subscribing_again_takes_the_place_of_the_first_subscription(chain: Chain) -> None:
    chain.hub.say(A, "t1", "r1", "1")
    peer = await chain.login()
    for id in ("1", "2"):
        await peer.ask(op="subscribe", id=id, thread="t1", after=1, epoch=EPOCH)
        assert (await peer.next())["op"] == "caught_up"
    chain.hub.say(A, "t1", "r1", "2")
    assert [each["seq"] for each in (await peer.next())["events"]] == [2]
    assert (await peer.ask(op="ping", id="3"))["id"] == "3"
    assert chain.hub.open_subscriptions() == 1


async def test_an_unsubscribe_overtakes_the_subscribe_that_still_waits(chain: Chain) -> None:
    peer = await chain.login()
    chain.hub.gate.clear()
    await peer.send(op="subscribe", id="1", thread="t1")
    assert (await peer.ask(op="unsubscribe", id="2", thread="t1"))["id"] == "2"
    chain.hub.gate.set()
    assert (await peer.next())["id"] == "1"
    chain.hub.say(A, "t1", "r1", "unheard")
    assert (await peer.ask(op="ping", id="3"))["id"] == "3"
    assert chain.hub.open_subscriptions() == 0


async def test_a_subscribe_while_the_log_is_away_says_so(chain: Chain) -> None:
    peer = await chain.login()
    chain.hub.failure = ChainDegraded("nats", retry_after_s=2)
    error = (await peer.ask(op="subscribe", id="1", thread="t1"))["error"]
    assert (error["code"], error["reason"], error["retry_after_s"]) == (
        "UNAVAILABLE",
        "CHAIN_DEGRADED",
        2,
    )
    assert chain.hub.open_subscriptions() == 0


async def test_cancel_answers_with_the_run_as_it_ended(chain: Chain) -> None:
    peer = await chain.login()
    run = run_id_for(A, "x")
    result = (await peer.ask(op="cancel", id="1", run=run))["result"]
    assert (result["run"]["run"], result["run"]["state"]) == (run, "cancelled")


async def test_a_run_that_is_not_there_is_not_found(chain: Chain) -> None:
    peer = await chain.login()
    error = (await peer.ask(op="cancel", id="1", run="nonsense"))["error"]
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "RUN_NOT_FOUND")


async def test_agents_threads_and_usage_are_the_callers(chain: Chain) -> None:
    peer = await chain.login(B)
    agents = (await peer.ask(op="agents", id="1"))["result"]["agents"]
    assert (agents[0]["name"], agents[0]["is_default"]) == ("researcher", True)
    threads = (await peer.ask(op="threads", id="2", page_token="p"))["result"]
    assert (threads["threads"][0]["thread"], threads["next_page_token"]) == ("of-ben", "p")
    assert threads["threads"][0]["metadata"] == {"a": 1}
    thread = (await peer.ask(op="thread", id="3", thread="of-ben"))["result"]
    assert (thread["thread"]["thread"], thread["runs"]) == ("of-ben", [])
    assert (await peer.ask(op="thread", id="4", thread="of-ana"))["error"]["reason"] == (
        "THREAD_NOT_FOUND"
    )
    assert (await peer.ask(op="usage", id="5"))["result"]["max_active_runs"] == 2


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "thread_update", "thread": "t", "title": "T", "metadata": {}},
        {"op": "thread_delete", "thread": "t"},
        {"op": "feedback", "run": "r", "score": 1, "comment": "good"},
    ],
)
async def test_what_is_not_there_yet_says_so(chain: Chain, frame: dict[str, Any]) -> None:
    peer = await chain.login()
    error = (await peer.ask(id="1", **frame))["error"]
    assert (error["code"], error["reason"]) == ("UNIMPLEMENTED", "NOT_IMPLEMENTED")


async def test_an_operation_of_an_unknown_kind_is_an_error_not_a_close(chain: Chain) -> None:
    peer = await chain.login()
    reply = await peer.ask(op="levitate", id="1")
    assert (reply["op"], reply["id"], reply["error"]["reason"]) == ("reply", "1", "INVALID_FIELD")
    assert (await peer.ask(op="ping", id="2"))["result"] == {}


async def test_a_frame_that_is_no_json_is_answered_and_the_socket_stays(chain: Chain) -> None:
    peer = await chain.login()
    await peer.ws.send_str("{not json")
    error = await peer.next()
    assert (error["op"], error["error"]["code"]) == ("error", "INVALID_ARGUMENT")
    assert (await peer.ask(op="ping", id="2"))["result"] == {}


async def test_slow_operations_are_bounded_and_hold_up_no_other(start_chain: Any) -> None:
    chain: Chain = await start_chain(operations_in_hand=2)
    peer = await chain.login()
    chain.engine.gate.clear()
    for id in ("1", "2"):
        await peer.send(op="cancel", id=id, run=run_id_for(A, id))
    assert (await peer.ask(op="agents", id="3"))["error"]["reason"] == "OPERATIONS_LIMIT"
    assert (await peer.ask(op="ping", id="4"))["id"] == "4"
    chain.engine.gate.set()
    assert {(await peer.next())["id"] for _ in range(2)} == {"1", "2"}
    assert (await peer.ask(op="agents", id="5"))["id"] == "5"


async def test_subscriptions_are_bounded(start_chain: Any) -> None:
    chain: Chain = await start_chain(subscriptions=2)
    peer = await chain.login()
    for thread in ("t1", "t2"):
        await peer.ask(op="subscribe", id=thread, thread=thread)
        await peer.next()
    for frame in (
        {"op": "subscribe", "id": "3", "thread": "t3"},
        {"op": "start", "id": "4", "thread": "t4", "input": {"text": "x"}},
    ):
        assert (await peer.ask(**frame))["error"]["reason"] == "SUBSCRIPTION_LIMIT"
    assert chain.engine.starts == []
    await peer.ask(op="unsubscribe", id="5", thread="t1")
    assert "result" in await peer.ask(op="subscribe", id="6", thread="t3")


async def test_two_users_on_one_thread_id_see_only_their_own(chain: Chain) -> None:
    ana, ben = await chain.login(A), await chain.login(B)
    chain.engine.on_start = lambda user, thread, run: chain.hub.say(
        user, thread, run, f"canary-{user.user}"
    )
    frame = {"op": "start", "id": "1", "thread": "t1", "request_id": "q", "input": {"text": "x"}}
    seen = {}
    for peer, name in ((ana, "ana"), (ben, "ben")):
        await peer.send(**frame)
        seen[name] = [await peer.next(), await peer.next()]
    assert "canary-ben" not in str(seen["ana"])
    assert "canary-ana" not in str(seen["ben"])
    assert seen["ana"][0]["result"]["run"] != seen["ben"][0]["result"]["run"]


async def test_a_lost_socket_gives_everything_back_and_cancels_no_start(chain: Chain) -> None:
    peer = await chain.login()
    await peer.ask(op="subscribe", id="1", thread="t1")
    chain.engine.gate.clear()
    await peer.send(op="start", id="2", input={"text": "x"}, thread="t2")
    await peer.send(op="cancel", id="3", run=run_id_for(A, "z"))
    await until_true(lambda: chain.engine.starts)
    await peer.ws.close()
    await until_true(
        lambda: not (chain.edge.sockets or chain.hub.open_subscriptions() or chain.hub.connected[A])
    )
    started: list[str] = []
    chain.engine.on_start = lambda user, thread, run: started.append(thread)
    chain.engine.gate.set()
    await until_true(lambda: started)
    assert chain.hub.open_subscriptions() == 0


async def test_an_engine_that_is_away_is_a_degraded_chain(chain: Chain) -> None:
    peer = await chain.login()
    chain.engine.failure = Capacity()
    assert (await peer.ask(op="start", id="1", input={"text": "x"}))["error"][
        "reason"
    ] == "CAPACITY"
