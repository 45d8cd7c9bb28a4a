"""The raw requests to JetStream against a real server."""

from __future__ import annotations

import asyncio

import pytest

from factorychain._core.jetstream import JetStream, Stream
from factorychain._core.log_reader import ensure_event_log
from factorychain._core.stored import (
    NatsUnavailable,
    StorageRefused,
    StreamMissing,
    WrongLastSequence,
)
from factorychain._core.stream_config import StreamConfig
from tests.nats_fixture import NatsServer
from tests.waiting import until

SUBJECT = "ev.0.u1.t1"


@pytest.fixture(params=[0, 1], ids=["replicas unknown", "one replica"])
async def log(bridge_js: JetStream, request: pytest.FixtureRequest) -> Stream:
    await ensure_event_log(bridge_js, 1, max_age_s=3600)
    return JetStream(bridge_js.connection, replicas=request.param).stream("EVENTS-0")


async def filled(log: Stream, count: int, subject: str = SUBJECT) -> list[int]:
    return [await log.publish(subject, b"m%d" % number) for number in range(1, count + 1)]


async def test_an_append_that_expects_the_last_message_is_stored(log: Stream) -> None:
    first = await log.publish(SUBJECT, b"a", expected_last_subject_seq=0)
    await log.publish("ev.0.u1.t2", b"another thread", expected_last_subject_seq=0)
    second = await log.publish(SUBJECT, b"b", expected_last_subject_seq=first)
    last = await log.last_message(SUBJECT)
    assert last is not None
    assert (last.seq, last.data, last.subject) == (second, b"b", SUBJECT)


async def test_a_conflicting_append_is_refused_with_the_sequence_found(log: Stream) -> None:
    first = await log.publish(SUBJECT, b"a", expected_last_subject_seq=0)
    with pytest.raises(WrongLastSequence) as lost:
        await log.publish(SUBJECT, b"b", expected_last_subject_seq=0)
    assert (lost.value.expected, lost.value.actual) == (0, first)
    assert await log.last_seq() == first


async def test_of_many_appends_at_once_exactly_one_wins(log: Stream) -> None:
    results = await asyncio.gather(
        *(log.publish(SUBJECT, b"%d" % n, expected_last_subject_seq=0) for n in range(50)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, int) for each in results) == 1
    assert sum(isinstance(each, WrongLastSequence) for each in results) == 49


async def test_an_append_whose_acknowledgement_is_lost_is_found_by_reading_forward(
    nats_server: NatsServer, log: Stream
) -> None:
    base = await log.publish(SUBJECT, b"before", expected_last_subject_seq=0)
    async with nats_server.connected("bridge", timeout_s=0.3) as impatient:
        nats_server.pause()
        try:
            with pytest.raises(NatsUnavailable) as lost:
                await impatient.stream("EVENTS-0").publish(
                    SUBJECT, b"batch", expected_last_subject_seq=base
                )
        finally:
            nats_server.resume()
    assert lost.value.sent
    found = await until(lambda: log.next_message(SUBJECT, base + 1))
    assert found.data == b"batch"
    # The same append again does not double it.
    with pytest.raises(WrongLastSequence):
        await log.publish(SUBJECT, b"batch", expected_last_subject_seq=base)
    messages, more = await log.read_range(SUBJECT, base + 1)
    assert ([each.data for each in messages], more) == ([b"batch"], False)


async def test_headers_are_stored_and_read_back_by_every_kind_of_read(log: Stream) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seq = await log.publish(SUBJECT, b"a", headers={"traceparent": trace})
    from_range, _ = await log.read_range(SUBJECT, 1)
    for message in (
        await log.last_message(SUBJECT),
        await log.next_message(SUBJECT, seq),
        from_range[0],
    ):
        assert message is not None
        assert dict(message.headers) == {"traceparent": trace}


async def test_a_range_is_read_in_order_in_one_request_and_says_whether_there_is_more(
    log: Stream,
) -> None:
    seqs = await filled(log, 10)
    await filled(log, 10, "ev.0.u2.t1")
    messages, more = await log.read_range(SUBJECT, seqs[3], batch=4)
    assert ([each.seq for each in messages], more) == (seqs[3:7], True)
    messages, more = await log.read_range(SUBJECT, seqs[7], batch=4)
    assert ([each.data for each in messages], more) == ([b"m8", b"m9", b"m10"], False)


async def test_a_range_that_ends_exactly_at_its_batch_has_no_more(log: Stream) -> None:
    await filled(log, 4)
    messages, more = await log.read_range(SUBJECT, 1, batch=4)
    assert (len(messages), more) == (4, False)


async def test_a_range_tells_the_sequence_before_each_message_but_the_first(log: Stream) -> None:
    first = await log.publish(SUBJECT, b"a")
    await log.publish("ev.0.u2.t1", b"x")
    second = await log.publish(SUBJECT, b"b")
    messages, _ = await log.read_range(SUBJECT, 1)
    assert [(each.seq, each.previous_seq) for each in messages] == [(first, 0), (second, first)]


async def test_a_range_is_bounded_in_bytes(log: Stream) -> None:
    for _ in range(8):
        await log.publish(SUBJECT, b"x" * 100_000)
    messages, more = await log.read_range(SUBJECT, 1, batch=100, max_bytes=250_000)
    assert 1 <= len(messages) <= 3
    assert more


async def test_a_range_beyond_the_end_and_an_empty_subject_are_empty(log: Stream) -> None:
    seqs = await filled(log, 2)
    assert await log.read_range(SUBJECT, seqs[-1] + 1) == ([], False)
    assert await log.read_range("ev.0.nobody.none", 1) == ([], False)
    assert await log.last_message("ev.0.nobody.none") is None
    assert await log.next_message(SUBJECT, seqs[-1] + 1) is None


async def test_many_ranges_at_once_do_not_mix(log: Stream) -> None:
    subjects = [f"ev.0.u{n}.t" for n in range(20)]
    for subject in subjects:
        await filled(log, 5, subject)
    results = await asyncio.gather(*(log.read_range(subject, 1) for subject in subjects))
    for subject, (messages, _) in zip(subjects, results, strict=True):
        assert {each.subject for each in messages} == {subject}
        assert [each.data for each in messages] == [b"m1", b"m2", b"m3", b"m4", b"m5"]


async def test_a_batch_of_the_biggest_size_passes(log: Stream) -> None:
    payload = bytes(range(256)) * 2048  # 512 KiB
    await log.publish(SUBJECT, payload, expected_last_subject_seq=0)
    last = await log.last_message(SUBJECT)
    assert last is not None
    assert last.data == payload


async def test_a_message_that_is_too_big_is_refused_for_good(log: Stream) -> None:
    with pytest.raises(StorageRefused, match="MaxPayloadError"):
        await log.publish(SUBJECT, bytes(3 * 1024 * 1024))


async def test_what_is_stored_is_republished_with_its_sequence(
    nats_server: NatsServer, log: Stream
) -> None:
    heard: asyncio.Queue[tuple[str, bytes, str, str]] = asyncio.Queue()
    async with nats_server.connected("bridge") as other:
        await other.connection.subscribe(
            "live.*.u1.*",
            lambda msg: heard.put_nowait(
                (
                    msg.subject,
                    msg.data,
                    msg.headers["Nats-Sequence"],
                    msg.headers["Nats-Last-Sequence"],
                )
                if msg.headers
                else (msg.subject, msg.data, "", "")
            ),
            confirm=True,
        )
        first = await log.publish(SUBJECT, b"a")
        await log.publish("ev.0.u2.t1", b"not for u1")
        second = await log.publish(SUBJECT, b"b")
        assert await heard.get() == ("live.0.u1.t1", b"a", str(first), "0")
        assert await heard.get() == ("live.0.u1.t1", b"b", str(second), str(first))


async def test_making_the_log_again_changes_nothing_and_other_settings_are_applied(
    bridge_js: JetStream, log: Stream
) -> None:
    seq = await log.publish(SUBJECT, b"a")
    await ensure_event_log(bridge_js, 1, max_age_s=3600)
    await ensure_event_log(bridge_js, 1, max_age_s=7200, max_bytes=10_000_000)
    assert await log.last_seq() == seq


async def test_a_log_with_another_number_of_shards_is_refused(
    bridge_js: JetStream, log: Stream
) -> None:
    with pytest.raises(StorageRefused, match=r"factorychain_shards=1, .* configured with 2"):
        await ensure_event_log(bridge_js, 2, max_age_s=3600)


async def test_replicas_that_make_the_log_at_once_all_succeed(nats_server: NatsServer) -> None:
    async with nats_server.connected("bridge") as one, nats_server.connected("bridge") as other:
        await asyncio.gather(
            *(ensure_event_log(js, 1, max_age_s=60) for js in (one, other, one, other))
        )


async def test_a_stream_that_is_not_there_yet_is_named(engine_js: JetStream) -> None:
    stream = engine_js.stream("EVENTS-0")
    with pytest.raises(StreamMissing, match="nats is not available") as missing:
        await stream.last_message(SUBJECT)
    assert missing.value.stream == "EVENTS-0"
    with pytest.raises(NatsUnavailable):
        await stream.read_range(SUBJECT, 1)


async def test_a_configuration_that_the_server_refuses_says_why(bridge_js: JetStream) -> None:
    config = StreamConfig(name="EVENTS-0", subjects=["ev.0.>"], replicas=3)
    with pytest.raises(StorageRefused, match=r"EVENTS-0: .*replicas"):
        await bridge_js.ensure_stream(config)
