"""Starts, queued starts, repeats, interrupts, cancels and ends of one user at random over two engines, one of which
is killed and replaced on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import (
    ChainDegraded,
    FactoryChainError,
    ThreadBusy,
    UserEngineLimit,
    UserQueueLimit,
)
from tests.engine_harness import Chain, Engine
from tests.load import amount
from tests.token_samples import ADA
from tests.waiting import until_not, until_true

THREADS = ("t1", "t2", "t3")
ON_BUSY = (pb.ON_BUSY_INTERRUPT, pb.ON_BUSY_ENQUEUE, pb.ON_BUSY_REJECT, pb.ON_BUSY_ENQUEUE)
_RUNS = amount(40, 200)
"""So many are admitted at least."""


class Users:
    """Everything that the one user does, and what was admitted of it."""

    def __init__(self, chain: Chain, engines: list[Engine], chance: random.Random) -> None:
        self.chain = chain
        self.engines = engines
        self.chance = chance
        self.admitted: dict[str, str] = {}
        """Thread by run."""
        self.requests: list[tuple[str, str]] = []

    async def act(self) -> None:
        while len(self.admitted) < _RUNS:
            act = self.chance.choice(
                (self._start, self._start, self._repeat, self._cancel, self._end)
            )
            try:
                await act(self.chance.choice(self.engines))
            except (ThreadBusy, UserEngineLimit, UserQueueLimit):
                await asyncio.sleep(0.01)
            except FactoryChainError as error:
                assert isinstance(error, ChainDegraded), error
            except asyncio.CancelledError:
                # grpc.aio raises it in callers of an engine that is gone.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise

    async def _start(self, engine: Engine) -> None:
        thread, request = self.chance.choice(THREADS), f"q{len(self.requests)}"
        self.requests.append((thread, request))
        await self._ask(engine, thread, request)

    async def _repeat(self, engine: Engine) -> None:
        if self.requests:
            await self._ask(engine, *self.chance.choice(self.requests))

    async def _ask(self, engine: Engine, thread: str, request: str) -> None:
        on_busy = ON_BUSY[int(request[1:]) % len(ON_BUSY)]
        calling = asyncio.ensure_future(
            engine.start_run(thread=thread, request_id=request, on_busy=on_busy)
        )
        if self.chance.random() < 0.2:  # the caller leaves at some moment
            await asyncio.wait([calling], timeout=self.chance.uniform(0, 0.01))
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            return
        started = await calling
        assert self.admitted.setdefault(started.run, thread) == thread

    async def _cancel(self, engine: Engine) -> None:
        if self.admitted:
            await engine.cancel(self.chance.choice(list(self.admitted)))

    async def _end(self, engine: Engine) -> None:
        del engine
        alive = [run for run, of in self.chain.agents.runs.items() if not of.finished.is_set()]
        if alive:
            await self.chain.agents.end(self.chance.choice(alive))


@pytest.mark.load
@pytest.mark.parametrize("seed", [1, 2])
async def test_at_most_two_run_and_every_run_ends_once(chain: Chain, seed: int) -> None:
    chance = random.Random(seed)
    engines = [await chain.engine(), await chain.engine()]
    users = Users(chain, engines, chance)
    async with _replaced_on_the_way(users):
        await asyncio.gather(*(users.act() for _ in range(6)))

    assert chain.agents.most_running_of[ADA.ukey] <= 2

    async def active() -> list[str]:
        # A start whose caller has left may reach agents only now.
        for run in list(chain.agents.runs):
            await chain.agents.end(run)
        return await engines[1].left()

    await until_not(active, 20)
    executed = chain.agents.executed
    assert len(executed) == len(set(executed))
    logged = {run for thread in THREADS for run, _ in await chain.log.events(ADA, thread)}
    assert logged >= {*users.admitted, *executed}
    for run in logged:
        endings = [len(await chain.log.endings(ADA, thread, run)) for thread in THREADS]
        assert sum(endings) == 1, f"{run}: {endings}"
    usage = await engines[1].stub.GetUsage(pb.GetUsageRequest(), metadata=engines[1].as_user(ADA))
    assert usage.recorded_runs == len(logged)


@asynccontextmanager
async def _replaced_on_the_way(users: Users) -> AsyncIterator[None]:
    async def replace() -> None:
        await until_true(lambda: len(users.admitted) > _RUNS / 2, 120)
        killed, users.engines[0] = users.engines[0], await users.chain.engine()
        await killed.crash()

    replacing = asyncio.create_task(replace())
    yield
    await replacing
