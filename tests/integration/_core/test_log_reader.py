"""A thread's log, read from a real server."""

from __future__ import annotations

import pytest

from factorychain._core.ids import Principal
from factorychain._core.jetstream import JetStream
from factorychain._core.log_reader import ThreadLogReader, ensure_event_log
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import AgentCompleted, AgentThinking, Event
from tests.nats_fixture import running_nats_server

ADA, BOB = Principal("acme", "ada"), Principal("acme", "bob")


@pytest.fixture
async def reader(bridge_js: JetStream) -> ThreadLogReader:
    await ensure_event_log(bridge_js, 1, max_age_s=3600)
    return ThreadLogReader(bridge_js, 1)


async def append(
    reader: ThreadLogReader,
    who: Principal,
    run: str,
    *texts: str,
    ends: bool = False,
    first_seq: int = 1,
) -> int:
    events = [Event(agent_thinking=AgentThinking(text=text)) for text in texts]
    if ends:
        events.append(Event(agent_completed=AgentCompleted(output_json=f'"{run}"')))
    batch = LogBatch(
        tenant=who.tenant,
        user=who.user,
        thread="t1",
        run=run,
        attempt=1,
        epoch=7,
        first_seq=first_seq,
        ends=ends,
        events=events,
    )
    stream, subject = reader.locate(who, "t1")
    return await stream.publish(subject, batch.SerializeToString())


async def test_an_empty_thread_has_no_position(reader: ThreadLogReader) -> None:
    assert await reader.last(ADA, "t1") is None
    assert [each async for each in reader.read_from(ADA, "t1", 0, 100)] == []
    assert await reader.find_ending(ADA, "t1", "r1", 0) is None


async def test_the_position_is_that_of_the_thread_and_nobody_elses(reader: ThreadLogReader) -> None:
    await append(reader, ADA, "r1", "a", "b")
    await append(reader, BOB, "r2", "x", ends=True)
    last = await reader.last(ADA, "t1")
    assert last is not None
    assert (last.seq, last.epoch, last.run, last.ended) == (2, 7, "r1", False)


async def test_everything_after_a_position_is_read(reader: ThreadLogReader) -> None:
    seqs = [await append(reader, ADA, "r1", str(n), first_seq=n) for n in range(1, 601)]
    await append(reader, BOB, "r2", "x")
    found = [
        (seq, batch.first_seq)
        async for seq, batch in reader.read_from(ADA, "t1", seqs[9], seqs[-1])
    ]
    assert found == [(seqs[n - 1], n) for n in range(11, 601)]


async def test_a_runs_ending_is_found_also_behind_later_runs(reader: ThreadLogReader) -> None:
    base = await append(reader, ADA, "r0", ends=True)
    await append(reader, ADA, "r1", "a", first_seq=2)
    assert await reader.find_ending(ADA, "t1", "r1", base) is None
    ended = await append(reader, ADA, "r1", "b", ends=True, first_seq=3)
    for later in range(3):
        found = await reader.find_ending(ADA, "t1", "r1", base)
        assert found is not None
        assert (found.stream_seq, found.seq, found.attempt) == (ended, 4, 1)
        assert found.event.agent_completed.output_json == '"r1"'
        await append(reader, ADA, "r2", ends=later == 1, first_seq=5 + later)
    assert await reader.find_ending(ADA, "t1", "r9", base) is None


async def test_an_ending_before_the_base_is_not_the_runs(reader: ThreadLogReader) -> None:
    base = await append(reader, ADA, "r1", ends=True)
    assert await reader.find_ending(ADA, "t1", "r1", base) is None


async def test_threads_of_several_shards_are_each_found(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        running_nats_server(tmp_path_factory.mktemp("shards"), shards=3) as server,
        server.connected("bridge") as js,
    ):
        await ensure_event_log(js, 3, max_age_s=60)
        reader = ThreadLogReader(js, 3)
        people = [Principal("acme", f"user-{n}") for n in range(30)]
        assert len({reader.locate(who, "t1")[0].name for who in people}) == 3
        for who in people:
            await append(reader, who, who.user)
        for who in people:
            last = await reader.last(who, "t1")
            assert last is not None
            assert last.run == who.user
