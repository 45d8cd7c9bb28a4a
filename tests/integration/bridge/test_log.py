"""Writing to the log: durable, fenced, over outages, and leaving nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from factorychain._core.execution_context import Scope
from factorychain._core.jetstream import Stream
from factorychain_bridge.bridge import BridgeStatistics
from factorychain_bridge.hub import HubStatistics
from tests.integration.bridge.replica import Collected, Receipts, Replica
from tests.nats_fixture import NatsServer
from tests.unit.bridge.samples import (
    ANA,
    OTHER_RUN,
    THREAD,
    completed,
    context,
    failed,
    started,
    thinking,
)
from tests.waiting import until

NOTHING = BridgeStatistics(
    routes=0, writers=0, live=HubStatistics(users=0, feeds=0, subscriptions=0)
)


async def stored_texts(replica: Replica) -> list[str]:
    last = await replica.reader.last(ANA, THREAD)
    if last is None:
        return []
    return [
        event.agent_thinking.text
        async for _, batch in replica.reader.read_from(ANA, THREAD, 0, last.stream_seq)
        for event in batch.events
    ]


def is_empty(replica: Replica) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return replica.bridge.statistics() == NOTHING

    return ask


async def test_what_is_acknowledged_is_in_the_log_and_nothing_stays_after_the_close(
    replica: Replica,
) -> None:
    sender = await replica.open(context())
    sender.send((1, started()))
    for n in range(2, 502):
        sender.send((n, thinking(str(n))))
        if n % 50 == 0:
            await asyncio.sleep(0)
    sender.send((502, completed()))
    await sender.ended()
    assert sender.receipts.durable_run_seq == 502
    assert await stored_texts(replica) == ["", *(str(n) for n in range(2, 502)), ""]
    sender.writer.close()
    sender.writer.close()
    await until(is_empty(replica))


async def test_a_stale_writer_is_fenced_after_its_run_was_settled_elsewhere(
    replica: Replica, other_replica: Replica
) -> None:
    stalled = await replica.open(context())
    stalled.send((1, started()))
    await stalled.durable(1)
    settling = await other_replica.open(context(scope=Scope.LIFECYCLE))
    settling.send((0, failed()))
    await settling.ended()
    last = await replica.reader.last(ANA, THREAD)
    assert last is not None
    following = await other_replica.open(
        context(run=OTHER_RUN, base=last.stream_seq, base_seq=last.seq)
    )
    following.send((1, started()))
    await following.durable(1)
    stalled.send((2, thinking("I am awake again")), (3, completed()))
    refusal = await stalled.refused()
    assert (refusal.reason, refusal.retryable) == ("RUN_ENDED", False)
    assert "I am awake again" not in await stored_texts(replica)
    assert len(replica.bridge._routes) == 0


async def test_a_log_that_cannot_be_read_ends_the_run_instead_of_leaving_it_without_an_answer(
    replica: Replica,
) -> None:
    stream, subject = replica.reader.locate(ANA, THREAD)
    await stream.publish(subject, b"\xff no batch")
    fresh = await replica.open(context())
    fresh.send((1, started()))
    resumed = await asyncio.wait_for(replica.open(context(run=OTHER_RUN), resumed=True), 5)
    for sender in (fresh, resumed):
        refusal = await sender.refused()
        assert (refusal.reason, refusal.retryable) == ("INTERNAL", False)
    await until(is_empty(replica))


async def durable_or_refused(receipts: Receipts, goal: int) -> None:
    await receipts.until(lambda said: said.durable_run_seq >= goal or said.refusal is not None)


async def test_two_replicas_that_write_one_run_store_each_event_once(
    replica: Replica, other_replica: Replica
) -> None:
    events = [(n, thinking(str(n))) for n in range(1, 301)]

    async def write(here: Replica) -> None:
        """As an emitter does: opens the run again and again, and goes on where the log stands."""
        while (sender := await here.open(context(), resumed=True)).writer.durable_run_seq < 300:
            for sent in range(sender.writer.durable_run_seq, 300, 7):
                sender.send(*events[sent : sent + 7])
                await durable_or_refused(sender.receipts, min(sent + 7, 300))
                if sender.receipts.refusal is not None:
                    break

    await asyncio.gather(write(replica), write(other_replica))
    assert await stored_texts(replica) == [str(n) for n in range(1, 301)]


async def test_a_run_that_is_opened_again_here_takes_over(replica: Replica) -> None:
    old = await replica.open(context())
    old.send((1, started()), (2, thinking("a")))
    await old.durable(2)
    new = await replica.open(context(), resumed=True)
    assert new.writer.durable_run_seq == 2
    assert (await old.refused()).reason == "WRITER_SUPERSEDED"
    new.send((3, completed()))
    await new.ended()
    again = await replica.open(context(), resumed=True)
    await again.ended()
    assert again.receipts.durable_run_seq == 3


async def test_an_outage_of_nats_holds_appends_back_and_loses_nothing(
    replica: Replica, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    replica.integration.on_change(lambda change: states.append(change.after.value))
    appends = _appends(replica, monkeypatch)
    sink = Collected()
    connected = await replica.hub.connect(ANA)
    subscription = await replica.subscribe(sink)
    sender = await replica.open(context())
    sender.send((1, thinking("1")))
    await sender.durable(1)
    await nats_server.kill()
    for n in range(2, 101):
        sender.send((n, thinking(str(n))))
        await asyncio.sleep(0.001)
    assert not replica.integration.active
    await nats_server.start()
    sender.send((101, completed()))
    await sender.ended()
    await sink.has(101)
    assert sink.texts == [*(str(n) for n in range(1, 101)), ""]
    assert sink.resets == []
    assert states[0] == "DEGRADED"
    assert states[-1] == "ACTIVE"
    assert set(appends) == {"ACTIVE"}, "it was tried to append during the outage"
    assert replica.recovery.healthy
    subscription.close()
    connected.close()
    sender.writer.close()


def _appends(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of each append, how the integration was when it was sent."""
    found: list[str] = []
    publish = Stream.publish

    async def noting(self: Stream, subject: str, payload: bytes, **options: Any) -> int:
        if "expected_last_subject_seq" in options:
            found.append(replica.integration.state.value)
        return await publish(self, subject, payload, **options)

    monkeypatch.setattr(Stream, "publish", noting)
    return found


async def test_recovery_that_is_exhausted_makes_it_unhealthy_until_nats_is_back(
    replica: Replica, nats_server: NatsServer
) -> None:
    reached = {state: asyncio.Event() for state in ("DEGRADED", "FAILED", "ACTIVE")}
    replica.integration.on_change(lambda change: reached[change.after.value].set())
    await nats_server.kill()
    async with asyncio.timeout(20):
        await reached["FAILED"].wait()
        assert replica.integration.attempts == 3
        assert not replica.recovery.healthy
        reached["ACTIVE"].clear()
        await nats_server.start()
        await reached["ACTIVE"].wait()
    assert replica.recovery.healthy


async def test_a_server_that_hangs_is_an_outage_too(
    replica: Replica, nats_server: NatsServer
) -> None:
    degraded = asyncio.Event()
    replica.integration.on_change(lambda _: degraded.set())
    sender = await replica.open(context())
    nats_server.pause()
    try:
        sender.send((1, started()))
        async with asyncio.timeout(20):
            await degraded.wait()
        assert not replica.integration.active
    finally:
        nats_server.resume()
    sender.send((2, completed()))
    await sender.ended()
    assert len(await stored_texts(replica)) == 2
