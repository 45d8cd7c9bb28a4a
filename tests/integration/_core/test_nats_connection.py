"""Outages, refusals and permissions against a real server."""

from __future__ import annotations

import asyncio
import contextvars
from pathlib import Path

import pytest

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket, ensure_bucket
from factorychain._core.log_reader import ensure_event_log
from factorychain._core.nats_connection import NatsConnection, NatsEndpoint, NatsState
from factorychain._core.stored import NatsUnavailable, StorageRefused
from tests.nats_fixture import NatsServer
from tests.waiting import until

SUBJECT = "ev.0.u1.t1"
OUTAGE_MAX_S = 0.5

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def reaches(connection: NatsConnection, state: NatsState) -> None:
    async def is_there() -> bool:
        return connection.state is state

    await until(is_there)


@pytest.fixture
async def log(bridge_js: JetStream) -> JetStream:
    await ensure_event_log(bridge_js, 1, max_age_s=3600)
    return bridge_js


async def test_a_request_under_way_fails_as_soon_as_the_server_dies(
    nats_server: NatsServer, log: JetStream
) -> None:
    nats_server.pause()
    waiting = asyncio.create_task(log.stream("EVENTS-0").publish(SUBJECT, b"a"))
    await reaches_in_flight(log.connection, 1)
    await nats_server.kill()
    async with asyncio.timeout(OUTAGE_MAX_S):
        with pytest.raises(NatsUnavailable) as lost:
            await waiting
    assert lost.value.sent
    assert log.connection.requests.in_flight == 0


async def reaches_in_flight(connection: NatsConnection, count: int) -> None:
    async def is_there() -> bool:
        return connection.requests.in_flight == count

    await until(is_there)


async def test_a_request_during_an_outage_fails_at_once_and_is_never_sent(
    nats_server: NatsServer, log: JetStream
) -> None:
    stream = log.stream("EVENTS-0")
    seq = await stream.publish(SUBJECT, b"before", expected_last_subject_seq=0)
    await nats_server.kill()
    await reaches(log.connection, NatsState.DISCONNECTED)
    for _ in range(3):
        async with asyncio.timeout(OUTAGE_MAX_S):
            with pytest.raises(NatsUnavailable) as refused:
                await stream.publish(SUBJECT, b"during", expected_last_subject_seq=seq)
        assert not refused.value.sent
    await nats_server.start()
    await reaches(log.connection, NatsState.CONNECTED)
    assert await stream.last_seq() == seq
    await stream.publish(SUBJECT, b"after", expected_last_subject_seq=seq)


async def test_what_was_not_written_when_the_connection_broke_is_not_sent_later(
    nats_server: NatsServer, log: JetStream
) -> None:
    stream = log.stream("EVENTS-0")
    nats_server.pause()
    # More than the socket's buffers take: the rest waits inside the client.
    waiting = [
        asyncio.create_task(stream.publish(SUBJECT, bytes(500_000), expected_last_subject_seq=0))
        for _ in range(40)
    ]
    await reaches_in_flight(log.connection, 40)
    await nats_server.kill()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, NatsUnavailable) for each in results)
    await nats_server.start()
    await reaches(log.connection, NatsState.CONNECTED)
    await log.connection.flush()
    assert await stream.last_message(SUBJECT) is None


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    nats_server: NatsServer, log: JetStream
) -> None:
    async with nats_server.connected("bridge", timeout_s=0.2) as impatient:
        nats_server.pause()
        try:
            async with asyncio.timeout(OUTAGE_MAX_S):
                with pytest.raises(NatsUnavailable, match="nats") as late:
                    await impatient.stream("EVENTS-0").last_message(SUBJECT)
        finally:
            nats_server.resume()
        assert "no answer in 0.2 s" in late.value.what
        # Its late answer reaches nobody.
        assert await impatient.stream("EVENTS-0").last_message(SUBJECT) is None
        assert impatient.connection.requests.in_flight == 0


async def test_a_cancelled_request_leaves_nothing_behind(
    nats_server: NatsServer, log: JetStream
) -> None:
    stream = log.stream("EVENTS-0")
    await stream.publish(SUBJECT, b"mine")
    await stream.publish("ev.0.u2.t1", b"theirs")
    for _ in range(50):
        task = asyncio.create_task(stream.last_message("ev.0.u2.t1"))
        await asyncio.sleep(0)
        task.cancel()
        mine = await stream.last_message(SUBJECT)
        assert mine is not None
        assert mine.data == b"mine"
        await asyncio.gather(task, return_exceptions=True)
    assert log.connection.requests.in_flight == 0


async def test_subscriptions_go_on_after_an_outage_and_states_are_told(
    nats_server: NatsServer, log: JetStream
) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    states: list[NatsState] = []
    log.connection.on_state(states.append)
    subscription = await log.connection.subscribe(
        "live.>", lambda msg: heard.put_nowait(msg.data), confirm=True
    )
    stream = log.stream("EVENTS-0")
    await stream.publish(SUBJECT, b"before")
    assert await heard.get() == b"before"
    await nats_server.kill()
    await reaches(log.connection, NatsState.DISCONNECTED)
    await nats_server.start()
    await reaches(log.connection, NatsState.CONNECTED)
    await stream.publish(SUBJECT, b"after")
    assert await heard.get() == b"after"
    assert states == [NatsState.DISCONNECTED, NatsState.CONNECTED]
    await log.connection.unsubscribe(subscription)
    await stream.publish(SUBJECT, b"unheard")
    await log.connection.flush()
    assert heard.empty()


async def test_a_connection_that_the_client_gave_up_is_opened_again(log: JetStream) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await log.connection.subscribe("live.>", lambda msg: heard.put_nowait(msg.data))
    given_up = log.connection.nc
    await given_up._process_err("'maximum connections exceeded'")

    async def is_back() -> bool:
        return log.connection.nc is not given_up and log.connection.healthy

    await until(is_back)
    await log.stream("EVENTS-0").publish(SUBJECT, b"again")
    assert await heard.get() == b"again"


async def test_callbacks_do_not_run_in_the_context_of_who_subscribed_first(log: JetStream) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    who.set("ada")
    await log.connection.subscribe("live.>", lambda _msg: heard.put_nowait(who.get()), confirm=True)
    await log.stream("EVENTS-0").publish(SUBJECT, b"a")
    assert await heard.get() == "nobody"


async def test_messages_that_do_not_fit_are_reported(log: JetStream) -> None:
    dropped = asyncio.Event()
    await log.connection.subscribe(
        "live.>", lambda _msg: None, dropped=dropped.set, max_bytes=1000, confirm=True
    )
    await log.stream("EVENTS-0").publish(SUBJECT, bytes(2000))
    async with asyncio.timeout(5):
        await dropped.wait()


async def test_a_wrong_password_is_told_at_once(nats_server: NatsServer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    connection = NatsConnection(NatsEndpoint(nats_server.url, "engine", wrong), "test")
    async with asyncio.timeout(5):
        with pytest.raises(NatsUnavailable) as refused:
            await connection.start()
    assert "refuses user 'engine'" in refused.value.what
    assert "guess" not in refused.value.what


async def test_a_server_that_is_not_there_is_told_in_time(nats_server: NatsServer) -> None:
    await nats_server.kill()
    connection = NatsConnection(nats_server.endpoint("engine"), "test", connect_timeout_s=0.3)
    async with asyncio.timeout(5):
        with pytest.raises(NatsUnavailable) as refused:
            await connection.start()
    assert nats_server.url in refused.value.what
    assert not connection.healthy


async def test_a_server_that_comes_a_little_later_is_waited_for(nats_server: NatsServer) -> None:
    await nats_server.kill()
    connection = NatsConnection(nats_server.endpoint("engine"), "test")
    starting = asyncio.create_task(connection.start())
    await nats_server.start()
    await starting
    assert connection.healthy
    await connection.stop()
    assert connection.state is NatsState.CLOSED


async def test_the_engine_cannot_write_the_log(engine_js: JetStream, log: JetStream) -> None:
    async with asyncio.timeout(OUTAGE_MAX_S):
        with pytest.raises(StorageRefused, match="may not"):
            await engine_js.stream("EVENTS-0").publish(SUBJECT, b"forged")
    await engine_js.connection.nc.publish("live.0.u1.t1", b"forged")
    with pytest.raises(StorageRefused, match="may not"):
        await ensure_event_log(engine_js, 1, max_age_s=1)  # a change of the log's settings
    assert (await log.stream("EVENTS-0").contents()).messages == 0
    # It may read it.
    assert await engine_js.stream("EVENTS-0").last_message(SUBJECT) is None
    assert await engine_js.stream("EVENTS-0").read_range(SUBJECT, 1) == ([], False)


async def test_the_bridge_cannot_write_records_nor_read_admission(
    engine_js: JetStream, bridge_js: JetStream
) -> None:
    for name in ("users", "runs", "threads", "engines"):
        bucket = await ensure_bucket(engine_js, name)
        seen = KvBucket.of(bridge_js, name)
        revision = await bucket.put("u1", b"true")
        for write in (seen.put("u1", b"forged"), seen.delete("u1", revision)):
            with pytest.raises(StorageRefused, match="may not"):
                await write
        assert await bucket.read("u1") == await bucket.get("u1")
        if name != "runs":
            with pytest.raises(StorageRefused, match="may not"):
                await seen.get("u1")


async def test_nobody_hears_the_replies_or_the_live_events_of_others(
    nats_server: NatsServer, engine_js: JetStream, log: JetStream
) -> None:
    heard: list[bytes] = []
    for subject in ("live.>", "ev.>", "_INBOX_bridge.>", "_INBOX.>", "$JS.API.>"):
        await engine_js.connection.subscribe(
            subject, lambda msg: heard.append(msg.data), confirm=True
        )
    await log.stream("EVENTS-0").publish(SUBJECT, b"private")
    await engine_js.connection.flush()
    assert heard == []


async def test_a_connection_is_made_from_settings(nats_server: NatsServer) -> None:
    connection = NatsConnection.from_settings(nats_server.settings("engine"), "test")
    await connection.start()
    await connection.flush()
    await connection.stop()


async def test_without_a_user_nobody_gets_in(nats_server: NatsServer) -> None:
    connection = NatsConnection(NatsEndpoint(nats_server.url), "test")
    async with asyncio.timeout(5):
        with pytest.raises(NatsUnavailable):
            await connection.start()
