"""What the services rely on of NATS: the real server keeps it, and so does the simulation's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from factorychain._core.jetstream import JetStream, Stream, TooManySubjects
from factorychain._core.kv import KvBucket, ensure_bucket
from factorychain._core.log_reader import ensure_event_log
from factorychain._core.stored import NatsUnavailable, StreamMissing, WrongLastSequence
from tests.integration.nats_contract.conftest import Nats
from tests.waiting import until, until_true

SUBJECT = "ev.0.u1.t1"


async def log_of(nats: Nats, replicas: int = 0) -> Stream:
    js = await nats.connect("bridge")
    await ensure_event_log(js, 1, max_age_s=3600)
    return JetStream(js.connection, replicas=replicas).stream("EVENTS-0")


async def bucket_of(nats: Nats) -> KvBucket:
    return await ensure_bucket(await nats.connect("engine"), "users")


@pytest.mark.parametrize("replicas", [0, 1])
async def test_an_append_is_stored_only_after_the_message_that_it_expects(
    nats: Nats, replicas: int
) -> None:
    log = await log_of(nats, replicas)
    first = await log.publish(SUBJECT, b"a", expected_last_subject_seq=0)
    other = await log.publish("ev.0.u1.t2", b"x", expected_last_subject_seq=0)
    with pytest.raises(WrongLastSequence) as lost:
        await log.publish(SUBJECT, b"b", expected_last_subject_seq=0)
    assert (lost.value.actual, await log.last_seq()) == (first, other)
    second = await log.publish(SUBJECT, b"b", expected_last_subject_seq=first)
    last = await log.last_message(SUBJECT)
    assert last is not None
    assert (last.seq, last.data) == (second, b"b")
    found = await log.next_message(SUBJECT, first + 1)
    assert found == last
    assert await log.next_message(SUBJECT, second + 1) is None
    assert await log.last_message("ev.0.u9.t9") is None


async def test_a_stream_says_how_much_is_in_it_and_from_where_to_where(nats: Nats) -> None:
    log = await log_of(nats)
    empty = await log.contents()
    assert (empty.messages, empty.first_seq) == (0, empty.last_seq + 1)
    first = await log.publish(SUBJECT, b"a")
    last = await log.publish(SUBJECT, b"b")
    found = await log.contents()
    assert found.created == empty.created
    assert (found.messages, found.first_seq, found.last_seq) == (2, first, last)
    assert found.size_bytes > 0
    assert found.last_at_s >= empty.last_at_s
    await log.publish("ev.0.u1.t2", b"c")
    assert (await log.contents(but_for=SUBJECT)).messages == 1
    assert (await log.contents(but_for="ev.0.u1.t3")).messages == 3


async def test_of_many_appends_at_once_one_wins(nats: Nats) -> None:
    log = await log_of(nats)
    appends = [log.publish(SUBJECT, b"%d" % n, expected_last_subject_seq=0) for n in range(20)]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert sum(isinstance(each, int) for each in results) == 1
    assert sum(isinstance(each, WrongLastSequence) for each in results) == 19


async def test_a_range_is_in_order_with_what_came_before_each_and_whether_there_is_more(
    nats: Nats,
) -> None:
    log = await log_of(nats)
    seqs = []
    for number in range(6):
        seqs.append(await log.publish(SUBJECT, b"m%d" % number, headers={"traceparent": "t"}))
        _ = await log.publish("ev.0.u2.t1", b"another's")
    some, more = await log.read_range(SUBJECT, seqs[1], batch=3)
    assert [(each.seq, each.previous_seq) for each in some] == [
        (seqs[1], 0),
        (seqs[2], seqs[1]),
        (seqs[3], seqs[2]),
    ]
    assert (more, dict(some[0].headers)) == (True, {"traceparent": "t"})
    rest, more = await log.read_range(SUBJECT, seqs[4], batch=3)
    assert ([each.data for each in rest], more) == ([b"m4", b"m5"], False)
    assert await log.read_range(SUBJECT, seqs[5] + 1) == ([], False)
    bounded, more = await log.read_range(SUBJECT, 1, max_bytes=1)
    assert (len(bounded), more) == (1, True)


async def test_what_is_stored_is_republished_with_its_sequence_and_that_before_it(
    nats: Nats,
) -> None:
    log, js = await log_of(nats), await nats.connect("bridge")
    heard: list[Any] = []
    subscription = await js.connection.subscribe("live.*.u1.*", heard.append, confirm=True)
    first = await log.publish(SUBJECT, b"a")
    _ = await log.publish("ev.0.u2.t1", b"another's")
    second = await log.publish(SUBJECT, b"b")
    await until_true(lambda: len(heard) == 2)
    assert [(each.subject, each.data) for each in heard] == [
        ("live.0.u1.t1", b"a"),
        ("live.0.u1.t1", b"b"),
    ]
    numbers = [(h.headers["Nats-Sequence"], h.headers["Nats-Last-Sequence"]) for h in heard]
    assert numbers == [(str(first), "0"), (str(second), str(first))]
    await js.connection.unsubscribe(subscription)
    _ = await log.publish(SUBJECT, b"c")
    await js.connection.flush()
    assert len(heard) == 2


async def test_a_restart_keeps_what_is_stored_and_connections_and_subscriptions_return(
    nats: Nats,
) -> None:
    log, js = await log_of(nats), await nats.connect("bridge")
    heard: list[Any] = []
    _ = await js.connection.subscribe("live.*.u1.*", heard.append, confirm=True)
    first = await log.publish(SUBJECT, b"a")
    await until_true(lambda: len(heard) == 1)
    await nats.restart()

    async def appended() -> bool:
        try:
            await log.publish(SUBJECT, b"b", expected_last_subject_seq=first)
        except NatsUnavailable:
            return False
        except WrongLastSequence:
            return True
        return True

    await until_true(lambda: js.connection.healthy)
    _ = await until(appended)
    await until_true(lambda: len(heard) == 2)
    assert [each.data for each in (await log.read_range(SUBJECT, 1))[0]] == [b"a", b"b"]


async def test_a_key_is_replaced_only_by_who_names_its_revision(nats: Nats) -> None:
    users = await bucket_of(nats)
    assert (await users.read("ada")).revision == 0
    first = await users.create("ada", b"1")
    with pytest.raises(WrongLastSequence):
        await users.create("ada", b"again")
    second = await users.update("ada", b"2", first)
    with pytest.raises(WrongLastSequence):
        await users.update("ada", b"3", first)
    found = await users.get("ada")
    assert found is not None
    assert (found.value, found.revision) == (b"2", second)


async def test_a_removed_key_is_gone_and_its_revision_still_counts(nats: Nats) -> None:
    users = await bucket_of(nats)
    first = await users.create("ada", b"1")
    with pytest.raises(WrongLastSequence):
        await users.delete("ada", first + 5)
    await users.delete("ada", first)
    assert await users.get("ada") is None
    with pytest.raises(WrongLastSequence):
        await users.update("ada", b"late", first)
    _ = await users.create("ada", b"2")
    found = await users.get("ada")
    assert found is not None
    assert found.value == b"2"


async def test_a_key_with_a_ttl_goes_unless_it_is_renewed(nats: Nats) -> None:
    engines = await ensure_bucket(await nats.connect("engine"), "engines")
    _ = await engines.create("e1", b"1", ttl_s=1)
    revision = await engines.create("e2", b"1", ttl_s=1)
    _ = await engines.update("e2", b"2", revision, ttl_s=30)
    await nats.pass_time(1.5)

    async def gone() -> bool:
        return await engines.get("e1") is None

    _ = await until(gone)
    assert [each.key for each in await engines.list()] == ["e2"]
    _ = await engines.create("e1", b"again", ttl_s=30)
    assert sorted(each.key for each in await engines.list()) == ["e1", "e2"]


@pytest.mark.parametrize("ttl", ["1", "1s"])
async def test_an_event_with_a_ttl_goes_and_its_sequence_stays(nats: Nats, ttl: str) -> None:
    log = await log_of(nats)
    first = await log.publish("ev.0.try", b"", headers={"Nats-TTL": ttl})
    await nats.pass_time(1.5)

    async def gone() -> bool:
        return await log.last_message("ev.0.try") is None

    _ = await until(gone)
    assert await log.publish(SUBJECT, b"a", expected_last_subject_seq=0) == first + 1


async def test_a_list_has_what_matches_in_the_order_of_writing(nats: Nats) -> None:
    runs = await ensure_bucket(await nats.connect("engine"), "runs")
    for key in ("u1.t1.a", "u1.t2.b", "u2.t1.c"):
        _ = await runs.put(key, key.encode())
    _ = await runs.put("u1.t1.a", b"later")
    found = [(each.key, each.value) for each in await runs.list("u1.>")]
    assert found == [("u1.t2.b", b"u1.t2.b"), ("u1.t1.a", b"later")]
    one = await runs.find("u1.*.b")
    assert one is not None
    assert one.key == "u1.t2.b"
    assert await runs.find("u3.*.b") is None
    assert sorted(await runs.keys("u1.>")) == ["u1.t1.a", "u1.t2.b"]


async def test_more_subjects_than_one_request_may_name_are_refused(nats: Nats) -> None:
    runs = await ensure_bucket(await nats.connect("engine"), "runs")
    await asyncio.gather(*(runs.put(f"u1.t.r{number}", b"") for number in range(1030)))
    with pytest.raises(TooManySubjects):
        await runs._stream.read_last(["$KV.runs.>"])


async def test_a_stream_that_is_not_there_is_named(nats: Nats) -> None:
    js = await nats.connect("engine")
    with pytest.raises(StreamMissing):
        await js.stream("EVENTS-0").last_message(SUBJECT)
