from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from factorychain._core.log_reader import position_of, read_upto
from factorychain._core.stored import StoredMessage
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event


@dataclass
class ReplicatedStream:
    """A stream whose replica has only the messages up to `replica_has`."""

    seqs: Sequence[int]
    replica_has: int
    page: int = 2
    leader_reads: list[int] = field(default_factory=list)

    async def read_range(self, subject: str, from_seq: int) -> tuple[list[StoredMessage], bool]:
        have = [seq for seq in self.seqs if from_seq <= seq <= self.replica_has]
        return [_message(seq) for seq in have[: self.page]], len(have) > self.page

    async def next_message(self, subject: str, from_seq: int) -> StoredMessage | None:
        self.leader_reads.append(from_seq)
        return next((_message(seq) for seq in self.seqs if seq >= from_seq), None)


def _message(seq: int) -> StoredMessage:
    return StoredMessage("ev.0.u.t", seq, b"")


async def read(stream: ReplicatedStream, after: int, upto: int) -> list[int]:
    return [message.seq async for message in read_upto(stream, "ev.0.u.t", after, upto)]


@pytest.mark.parametrize("replica_has", [0, 2, 5, 8, 13])
async def test_a_replica_that_is_behind_hides_nothing(replica_has: int) -> None:
    stream = ReplicatedStream([2, 3, 5, 8, 13], replica_has)
    assert await read(stream, 0, 13) == [2, 3, 5, 8, 13]


async def test_a_replica_that_has_everything_is_enough() -> None:
    stream = ReplicatedStream([2, 3, 5, 8, 13], 13)
    await read(stream, 0, 13)
    assert stream.leader_reads == []


async def test_only_what_was_asked_for_is_read() -> None:
    stream = ReplicatedStream([2, 3, 5, 8, 13], 13)
    assert await read(stream, 3, 8) == [5, 8]
    assert await read(stream, 13, 13) == []


async def test_a_message_that_has_aged_out_ends_the_reading() -> None:
    stream = ReplicatedStream([2, 3], 3)
    assert await read(stream, 0, 9) == [2, 3]
    assert await read(ReplicatedStream([2, 20], 20), 0, 9) == [2]


def test_a_position_is_the_last_event_of_the_last_batch() -> None:
    batch = LogBatch(run="r1", epoch=7, first_seq=4, ends=True, events=[Event(), Event(), Event()])
    position = position_of(StoredMessage("ev.0.u.t", 99, batch.SerializeToString()))
    assert (position.stream_seq, position.seq, position.epoch) == (99, 6, 7)
    assert (position.run, position.ended) == ("r1", True)
