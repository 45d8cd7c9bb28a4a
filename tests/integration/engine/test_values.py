"""What agents keep in a thread, over gRPC and in NATS."""

from __future__ import annotations

import asyncio

import pytest

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import InvalidField, RunEnded, StateConflict, StateLimit, TokenInvalid
from tests.engine_harness import BOB, Chain, Engine
from tests.kept_values import a_run
from tests.token_samples import ADA
from tests.waiting import until_not


async def test_what_one_run_keeps_the_next_one_finds(chain: Chain, engine: Engine) -> None:
    first = await a_run(chain, engine)
    assert await first.load() == (None, 0)
    large = bytes(range(256)) * 2048  # as large as a value may be
    revision = await first.store(large)
    assert await first.store(large) == revision  # the same change again
    with pytest.raises(StateConflict):
        await first.store(b"x", request_id="2")
    await chain.agents.end(first.run)
    await until_not(engine.active)
    with pytest.raises(RunEnded):
        await first.store(b"late", revision, request_id="3")
    second = await a_run(chain, engine)
    assert await second.load() == (large, revision)
    assert await second.store(None, revision, request_id="4") == 0
    assert await second.load() == (None, 0)
    await second.store(b"", 0, request_id="5")
    assert (await second.load())[0] == b""


async def test_values_are_of_one_thread_of_one_user(chain: Chain, engine: Engine) -> None:
    runs = [
        await a_run(chain, engine, ADA, "t1"),
        await a_run(chain, engine, ADA, "t2"),
        await a_run(chain, engine, BOB, "t1"),
    ]
    for index, each in enumerate(runs):
        await each.store(f"{index}".encode())
    assert [(await each.load())[0] for each in runs] == [b"0", b"1", b"2"]


async def test_changes_at_once_are_made_one_at_a_time(chain: Chain, engine: Engine) -> None:
    run = await a_run(chain, engine)

    async def counts(who: int) -> int:
        for attempt in range(100):
            value, revision = await run.load("count")
            counted = str(int(value or b"0") + 1).encode()
            try:
                await run.store(counted, revision, name="count", request_id=f"{who}-{attempt}")
            except StateConflict:
                continue
            return attempt
        raise AssertionError("it never had its turn")

    await asyncio.gather(*(counts(who) for who in range(8)))
    assert (await run.load("count"))[0] == b"8"


async def test_what_is_refused_says_why(chain: Chain, engine: Engine) -> None:
    run = await a_run(chain, engine)
    with pytest.raises(StateLimit, match="524288"):
        await run.store(bytes(512 * 1024 + 1))
    with pytest.raises(InvalidField):
        await run.load("no name")
    for call, request in (
        (engine.stub.LoadValue, pb.LoadValueRequest(name="state")),
        (engine.stub.StoreValue, pb.StoreValueRequest(name="state", request_id="1")),
    ):
        with pytest.raises(TokenInvalid):
            await call(request, metadata=engine.as_user(ADA))
