"""A value of any size in small blobs."""

from __future__ import annotations

import random

import pytest

from factorychain._instance.memory_values import MemoryValues
from factorychain.adapters.large_blob import LargeBlob
from factorychain.errors import AgentError, StateConflict, StateLimit

NAME = "langgraph:x"


class Blobs:
    """Values in memory that can fail in the middle of several changes."""

    def __init__(self) -> None:
        self.values = MemoryValues()
        self.names: set[str] = set()
        self.left: int | None = None

    async def load(self, name: str) -> tuple[bytes | None, int]:
        return self.values.load(name)

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("the engine is away")
        self.names.add(name)
        return self.values.store(name, value, revision)

    def kept(self) -> set[str]:
        return {each for each in self.names if self.values.load(each)[0] is not None}


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that cannot be compressed."""
    return random.Random(seed).randbytes(size)


async def read(blobs: Blobs) -> bytes | None:
    return await LargeBlob(blobs, NAME).load()


@pytest.mark.parametrize("sizes", [(0,), (10, 20), (10, 2_000_000, 10), (2_000_000, 1_000_000)])
async def test_what_was_stored_last_is_read_and_nothing_is_left_of_the_rest(
    sizes: tuple[int, ...],
) -> None:
    blobs = Blobs()
    for seed, size in enumerate(sizes):
        large = LargeBlob(blobs, NAME)
        await large.load()
        await large.store(noise(size, seed))
    assert await read(blobs) == noise(sizes[-1], len(sizes) - 1)
    assert len(blobs.kept()) == (1 if sizes[-1] < 300_000 else 1 + -(-sizes[-1] // 393_216))


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_nothing_is_left_of_what_is_removed(size: int) -> None:
    blobs = Blobs()
    await LargeBlob(blobs, NAME).store(noise(size))
    large = LargeBlob(blobs, NAME)
    await large.load()
    await large.remove()
    assert not blobs.kept()
    await large.store(b"new")
    assert await read(blobs) == b"new"


async def test_no_part_is_larger_than_a_value_may_be() -> None:
    blobs = Blobs()
    await LargeBlob(blobs, NAME).store(noise(3_000_000))
    assert max(len(blobs.values.load(each)[0] or b"") for each in blobs.kept()) <= 400_000


@pytest.mark.parametrize("after", range(8))
async def test_storing_that_breaks_off_leaves_what_was_there_or_what_is_new(after: int) -> None:
    blobs = Blobs()
    large = LargeBlob(blobs, NAME)
    await large.store(noise(1_000_000, 1))
    blobs.left = after
    try:
        await large.store(noise(1_000_000, 2))
    except ConnectionError:
        blobs.left = None
        again = LargeBlob(blobs, NAME)
        assert await again.load() in (noise(1_000_000, 1), noise(1_000_000, 2))
        await again.store(noise(1_000_000, 3))
        assert await read(blobs) == noise(1_000_000, 3)
    else:
        assert await read(blobs) == noise(1_000_000, 2)


async def test_two_who_store_at_once_are_told_apart() -> None:
    blobs = Blobs()
    one, other = LargeBlob(blobs, NAME), LargeBlob(blobs, NAME)
    await one.store(b"one")
    with pytest.raises(StateConflict):
        await other.store(b"other")
    assert await read(blobs) == b"one"


async def test_what_is_damaged_counts_as_nothing_and_can_be_replaced() -> None:
    blobs = Blobs()
    for damaged in (b"", b"[]\n", b"{}\n", b'{"slot":0,"parts":2,"digest":"x"}\n', b"\x00" * 9000):
        _, revision = blobs.values.load(NAME)
        blobs.values.store(NAME, damaged, revision)
        large = LargeBlob(blobs, NAME)
        assert await large.load() is None
        await large.store(b"new")
        assert await read(blobs) == b"new"


async def test_what_the_operator_does_not_allow_is_an_ending_with_a_reason() -> None:
    class Narrow(Blobs):
        async def store(self, name: str, value: bytes | None, revision: int) -> int:
            raise StateLimit("a value may have 1024 bytes")

    with pytest.raises(AgentError) as raised:
        await LargeBlob(Narrow(), NAME).store(b"value")
    assert raised.value.reason == "STATE_TOO_LARGE"


async def test_a_value_beyond_all_measure_is_refused_with_a_reason() -> None:
    with pytest.raises(AgentError, match="too long"):
        await LargeBlob(Blobs(), NAME).store(noise(14_000_000))
