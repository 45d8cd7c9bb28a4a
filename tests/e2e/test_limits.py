"""The limit of two runs a user holds over engines, also over one that is stopped in mid-admission."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.settings import PREFIX, TransportSettings
from factorychain.engine.v1 import engine_pb2
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain.errors import UserEngineLimit
from factorychain.local.ports import free_ports
from factorychain.local.readiness import layer_serves
from tests.e2e.chain import ROOT, Chain, environment, running_chain
from tests.load import amount
from tests.waiting import until_true

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = amount(25, 200)
STARTS = 100
_STOP_EVERY = 8
_CALL_S = 60.0


@pytest.mark.load
@pytest.mark.timeout(900)
async def test_a_hundred_starts_at_once_over_two_engines_never_admit_a_third_run(
    tmp_path: Path,
) -> None:
    # As tasks: it is the engines that are tried.
    env = {f"{PREFIX}RUN_LIFETIME_S": "600", f"{PREFIX}ISOLATION": "task"}
    async with running_chain(tmp_path / "chain", env=env) as chain, _engines(chain) as engines:
        for index in range(ROUNDS):
            stopped = engines[1][1] if index % _STOP_EVERY == 7 else None
            await _one_round(chain, [stub for stub, _ in engines], f"user-{index}", stopped)


async def _one_round(
    chain: Chain, stubs: list[EngineServiceStub], user: str, stopped: int | None
) -> None:
    metadata = (("authorization", f"Bearer {chain.token(user)}"),)
    starts = [
        asyncio.create_task(_start(stubs[index % 2], metadata, index)) for index in range(STARTS)
    ]
    if stopped is not None:
        # In the middle of its admissions: some have read the record, none may write it afterwards.
        await asyncio.sleep(0.005)
        with _stopped(stopped):
            await asyncio.wait(starts[0::2])
    runs = [run for run in await asyncio.gather(*starts) if run is not None]
    assert len(set(runs)) == 2, f"{user}: {len(set(runs))} runs were admitted"
    await _only_these_are_active(stubs[0], metadata, runs)
    await asyncio.gather(*(_cancel(stubs[0], metadata, run) for run in runs))


async def _start(
    stub: EngineServiceStub, metadata: tuple[tuple[str, str], ...], index: int
) -> str | None:
    """The run, or None when the limit refused it."""
    request = engine_pb2.StartRunRequest(
        agent="waits", thread=f"t{index}", input_json='{"text":"600"}', request_id=f"q{index}"
    )
    try:
        answer = await stub.StartRun(request, metadata=metadata, timeout=_CALL_S)
    except UserEngineLimit:
        return None
    return answer.run


async def _only_these_are_active(
    stub: EngineServiceStub, metadata: tuple[tuple[str, str], ...], runs: list[str]
) -> None:
    answer = await stub.ListRuns(
        engine_pb2.ListRunsRequest(active_only=True), metadata=metadata, timeout=_CALL_S
    )
    assert {run.run for run in answer.runs} == set(runs)


async def _cancel(stub: EngineServiceStub, metadata: tuple[tuple[str, str], ...], run: str) -> None:
    await stub.CancelRun(engine_pb2.CancelRunRequest(run=run), metadata=metadata, timeout=_CALL_S)


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _engines(chain: Chain) -> AsyncIterator[list[tuple[EngineServiceStub, int]]]:
    """The chain's engine and a second one on the same NATS: their stubs and pids."""
    (port,) = free_ports(1)
    keys = chain.data.path / "keys"
    state = chain.state
    env = environment(
        {
            f"{PREFIX}LISTEN": f"127.0.0.1:{port}",
            f"{PREFIX}RUN_LIFETIME_S": "600",
            f"{PREFIX}NATS_URL": state.nats,
            f"{PREFIX}NATS_USER": "engine",
            f"{PREFIX}NATS_PASSWORD_FILE": str(keys / "nats-engine"),
            f"{PREFIX}TXN_KEY_FILE": str(keys / "txn-key.pem"),
            f"{PREFIX}TXN_JWKS_FILE": str(chain.data.txn_jwks_file),
            f"{PREFIX}USER_SECRET_FILE": str(keys / "user-secret"),
            f"{PREFIX}AGENTS_ADDRESS": state.agents,
            f"{PREFIX}EMITTER_ADDRESS": state.emitter,
        }
    )
    command = [sys.executable, "-P", "-m", "factorychain_engine"]
    with (chain.folder / "second-engine.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        async with asyncio.timeout(90):
            while not await layer_serves(f"127.0.0.1:{port}"):
                assert process.poll() is None, (chain.folder / "second-engine.log").read_text()
                await asyncio.sleep(0.1)
        async with _engine(state.engine) as first, _engine(f"127.0.0.1:{port}") as second:
            yield [(first, chain.pid("engine")), (second, process.pid)]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


@contextlib.asynccontextmanager
async def _engine(address: str) -> AsyncIterator[EngineServiceStub]:
    """As an edge calls it: starts share a stream."""
    service = engine_pb2.DESCRIPTOR.services_by_name["EngineService"]
    channel = GrpcChannel(address, "engine", TransportSettings(), carries=service)
    await channel.start()
    try:
        await until_true(lambda: channel.carrying)
        yield EngineServiceStub(channel.channel)
    finally:
        await channel.stop()
