"""The Python client against a real edge."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from factorychain._core.ids import run_id_for
from factorychain.client import CaughtUp, Client, Event, Reset, dialing
from factorychain.errors import (
    AgentError,
    Capacity,
    ChainDegraded,
    FactoryChainError,
    RunNotFound,
    TokenExpired,
    TokenInvalid,
    UserEngineLimit,
)
from factorychain.types.v1.event_pb2 import Event as StoredEvent
from factorychain_bridge.items import Events
from tests.chaos.relay import Relay
from tests.integration.edge.chain import Chain
from tests.integration.edge.hub import batch
from tests.integration.edge.people import EPOCH, A, B, token
from tests.waiting import until_true


def end(chain: Chain, thread: str, run: str, **parts: Any) -> None:
    """Append an ending."""
    stored = chain.hub.log.setdefault((A, thread), [])
    found = batch(A, thread, run, stored[-1].last_seq + 1 if stored else 1)
    found.events.append(StoredEvent(**parts))
    found.ends = True
    stored.append(Events(found, 0))
    chain.hub.deliver(A, thread, stored[-1])


def complete(chain: Chain, thread: str, run: str, output: str = '"done"') -> None:
    end(chain, thread, run, agent_completed={"output_json": output})


async def test_a_run_gives_its_events_and_its_result(chain: Chain) -> None:
    def work(user: Any, thread: str, run: str) -> None:
        chain.hub.say(user, thread, run, "one", "two")
        complete(chain, thread, run, '{"answer":42}')

    chain.engine.on_start = work
    async with Client(chain.url, token()) as client:
        assert client.ready is not None
        assert client.ready.user == "ana"
        run = await client.start("hi", thread="t1")
        seen = [(event.seq, event.type, event.text) async for event in run]
        assert seen == [
            (1, "agent_thinking", "one"),
            (2, "agent_thinking", "two"),
            (3, "agent_completed", ""),
        ]
        assert await run.result() == {"answer": 42}


async def test_failed_and_cancelled_runs_are_typed_errors(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        run = await client.start("hi", thread="t1")
        end(
            chain,
            "t1",
            run.id,
            agent_failed={"reason": "OUT_OF_LUCK", "message": "sorry", "retryable": True},
        )
        with pytest.raises(AgentError) as failed:
            await run.result()
        assert (failed.value.reason, failed.value.retryable) == ("OUT_OF_LUCK", True)
        run = await client.start("hi", thread="t1")
        end(chain, "t1", run.id, agent_cancelled={"reason": "USER"})
        with pytest.raises(FactoryChainError) as cancelled:
            await run.result()
        assert cancelled.value.reason == "RUN_CANCELLED"


async def test_refusals_are_typed_errors(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        chain.engine.failure = UserEngineLimit(2, retry_after_s=3)
        with pytest.raises(UserEngineLimit) as refused:
            await client.start("hi")
        assert refused.value.retry_after_s == 3
        with pytest.raises(RunNotFound):
            await client.cancel("nonsense")


async def test_agents_threads_and_the_rest_are_there(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        assert (await client.agents())[0]["name"] == "researcher"
        assert (await client.threads())["next_page_token"] == ""
        assert (await client.thread("of-ana"))["runs"] == []
        assert (await client.usage())["max_active_runs"] == 2
        assert (await client.cancel(run_id_for(A, "x")))["state"] == "cancelled"
        await client.ping()


async def test_a_subscription_marks_where_it_has_caught_up(chain: Chain) -> None:
    chain.hub.say(A, "t1", "r1", "1", "2", "3")
    async with Client(chain.url, token()) as client:
        subscription = await client.subscribe("t1", after=1, epoch=EPOCH)
        items = [await subscription.next_item() for _ in range(3)]
        assert [each.seq for each in items if isinstance(each, Event)] == [2, 3]
        assert items[-1] == CaughtUp("t1", 3)
        assert subscription.position == (3, EPOCH)


async def test_a_position_that_does_not_hold_is_reset(chain: Chain) -> None:
    chain.hub.say(A, "t1", "r1", "1")
    async with Client(chain.url, token()) as client:
        subscription = await client.subscribe("t1", after=7, epoch=1)
        assert await subscription.next_item() == Reset("t1", EPOCH, "EPOCH_CHANGED")
        first = await subscription.next_item()
        assert isinstance(first, Event)
        assert first.seq == 1


async def test_cuts_lose_and_repeat_nothing(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        run = await client.start("hi", thread="t1")
        both = await client.subscribe("t1")
        for number in range(60):
            chain.hub.say(A, "t1", run.id, str(number))
            if number % 20 == 7:
                await client.cut()
            if number % 20 == 11:
                wanted = number // 20 + 2
                await until_true(partial(lambda wanted: client.connections >= wanted, wanted))
        complete(chain, "t1", run.id)
        seen = [event.seq async for event in run]
        assert seen == list(range(1, 62))
        assert [(await anext(both)).seq for _ in seen] == seen
        assert client.connections >= 3


async def test_an_edge_that_says_nothing_and_closes_nothing_is_left(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "HEARTBEAT_S", 0.4)
    relay = Relay(chain.url.removeprefix("http://"))
    async with Client(f"http://{await relay.listen()}", token()) as client:
        run = await client.start("hi", thread="t1")
        events = aiter(run)
        chain.hub.say(A, "t1", run.id, "one")
        assert (await anext(events)).text == "one"
        relay.silence()
        chain.hub.say(A, "t1", run.id, "two")
        await until_true(lambda: relay.connections > 1)  # it tries another one
        relay.heal()
        complete(chain, "t1", run.id)
        assert [each.seq async for each in events] == [2, 3]
    await relay.stop()


async def test_a_start_whose_answer_was_cut_off_finds_its_run_again(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        chain.engine.gate.clear()
        starting = asyncio.create_task(client.start("hi", thread="t1"))
        await until_true(lambda: chain.engine.starts)
        await client.cut()
        await until_true(lambda: len(chain.engine.starts) == 2)
        first, second = chain.engine.starts
        assert first == second
        assert first.request_id
        chain.engine.gate.set()
        run = await starting
        complete(chain, "t1", run.id)
        assert await run.result() == "done"


async def test_an_existing_run_of_a_followed_thread_is_replayed_to_who_asks_again(
    chain: Chain,
) -> None:
    async with Client(chain.url, token()) as client:
        subscription = await client.subscribe("t1")
        run_id = run_id_for(A, "q")
        chain.hub.say(A, "t1", run_id, "1", "2")
        complete(chain, "t1", run_id)
        assert [(await anext(subscription)).seq for _ in range(3)] == [1, 2, 3]
        chain.engine.existing = True
        run = await client.start("hi", thread="t1", request_id="q")
        assert [event.seq async for event in run] == [1, 2, 3]
        chain.hub.say(A, "t1", "r9", "4")
        assert (await anext(subscription)).seq == 4


async def test_a_bad_token_is_an_error_at_once(chain: Chain) -> None:
    with pytest.raises(TokenInvalid):
        async with Client(chain.url, "nonsense"):
            pass
    with pytest.raises(TokenExpired):
        async with Client(chain.url, token(ttl_s=-100)):
            pass


async def test_a_token_source_is_asked_again_when_the_token_ends(chain: Chain) -> None:
    given: list[str] = []

    async def source() -> str:
        given.append(token(ttl_s=1.5 if len(given) == 0 else 3600))
        return given[-1]

    async with Client(chain.url, source) as client:
        # Shorter than the notice: it is announced at once, and renewed without a new connection.
        await until_true(lambda: len(given) == 2)
        await asyncio.sleep(1.6)
        await client.ping()
        assert client.connections == 1


async def test_one_connection_too_many_is_an_error(start_chain: Any) -> None:
    chain: Chain = await start_chain(sockets_per_user=1)
    async with Client(chain.url, token()):
        with pytest.raises(Capacity):
            async with Client(chain.url, token()):
                pass
        async with Client(chain.url, token(B)):
            pass


async def test_an_address_where_nothing_listens_is_an_error(chain: Chain) -> None:
    with pytest.raises(ChainDegraded) as failed:
        async with Client("http://127.0.0.1:1", token(), give_up_after_s=0.3):
            pass
    assert "is the chain up" in failed.value.message


async def test_an_edge_that_stays_away_ends_what_waits_for_it(chain: Chain) -> None:
    async with Client(chain.url, token(), give_up_after_s=0.5) as client:
        subscription = await client.subscribe("t1")
        await chain.edge.stop()
        assert await subscription.next_item() == CaughtUp("t1", 0)
        with pytest.raises(ChainDegraded):
            await subscription.next_item()


async def test_many_requests_keep_to_the_frames_that_are_allowed(start_chain: Any) -> None:
    chain: Chain = await start_chain(frames_per_s=100.0, frames_burst=20)
    async with Client(chain.url, token()) as client:
        await asyncio.gather(*(client.ping() for _ in range(60)))
        assert client.connections == 1


async def test_leaving_lets_go_of_everything(chain: Chain) -> None:
    async with Client(chain.url, token()) as client:
        run = await client.start("hi")
        waiting = asyncio.create_task(run.result())
        await asyncio.sleep(0)
    with pytest.raises(ChainDegraded):
        await waiting
    await until_true(lambda: not chain.edge.sockets)
    assert chain.hub.open_subscriptions() == 0
