"""A chain that cannot come up is given up, with the reason, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from factorychain.local.chain import LAYERS, ChainPlan
from factorychain.local.datadir import DataDir
from factorychain.local.ports import hold_ports, port_of
from factorychain.local.process import ProcessSpec
from factorychain.local.state import ChainState
from factorychain.local.supervisor import ChainDidNotStart, Supervisor

LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


@pytest.fixture
def directory(tmp_path: Path) -> DataDir:
    found = DataDir(tmp_path / "data")
    found.prepare()
    return found


def plan(emitter: str, directory: DataDir, *, nats: str = "") -> ChainPlan:
    """Something that listens as NATS does, three layers that do nothing, and an emitter of one line."""
    held = hold_ports(6)
    nats_port, *ports = map(port_of, held)
    engine, agents, emitter_at, bridge, edge = (f"127.0.0.1:{port}" for port in ports)
    nats_url = f"nats://127.0.0.1:{nats_port}"
    state = ChainState(f"http://{edge}", engine, agents, emitter_at, bridge, nats_url)
    env = dict(os.environ) | {"REASON": str(directory.reason_file("emitter"))}
    listening = [sys.executable, "-c", LISTEN, str(nats_port)]
    command = ["sh", "-c", nats] if nats else listening
    specs = [ProcessSpec("nats", command, env)]
    for layer in LAYERS:
        line = emitter if layer == "emitter" else "exec sleep 600"
        specs.append(ProcessSpec(layer, ["sh", "-c", line], env))
    return ChainPlan(specs, state, [], held)


class Started:
    """A supervisor, and the exits that it reported."""

    def __init__(self, chain: ChainPlan, directory: DataDir) -> None:
        self.reported: list[tuple[str, str]] = []
        self.supervisor = Supervisor(
            chain,
            directory,
            ready_file=directory.path / "ready.json",
            report=lambda name, what: self.reported.append((name, what)),
        )


async def failed(started: Started) -> str:
    """How the start failed; it has stopped then."""
    with pytest.raises(ChainDidNotStart) as caught:
        await started.supervisor.start()
    pids = [pid for pids in started.supervisor.state.pids.values() for pid in pids]
    await started.supervisor.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return str(caught.value)


async def test_a_process_that_dies_again_and_again_is_named(directory: DataDir) -> None:
    started = Started(plan("exit 3", directory), directory)
    problem = await failed(started)
    assert problem.startswith("emitter does not start: it exited with status 3")
    assert str(directory.nats_log) in problem
    assert started.reported == [("emitter", "exited with status 3")] * 3
    assert not (directory.path / "ready.json").exists()


async def test_a_wrong_configuration_is_not_tried_again_and_its_reason_is_told(
    directory: DataDir,
) -> None:
    started = Started(plan("echo 'no such module: x' > $REASON; exit 2", directory), directory)
    assert (await failed(started)).strip() == "emitter does not start: no such module: x"
    assert started.reported == [("emitter", "exited with status 2")]


async def test_the_reason_of_an_earlier_start_is_not_told_again(directory: DataDir) -> None:
    directory.reason_file("emitter").write_text("of yesterday")
    problem = await failed(Started(plan("exit 2", directory), directory))
    assert "of yesterday" not in problem


async def test_nothing_is_started_before_nats_listens(directory: DataDir) -> None:
    started = Started(plan("touch $REASON", directory, nats="exit 1"), directory)
    assert (await failed(started)).startswith("nats does not start: it exited with status 1")
    assert set(started.supervisor.state.pids) == {"nats"}


@pytest.fixture
async def waiting(directory: DataDir) -> AsyncIterator[Started]:
    """A chain whose start lasts."""
    started = Started(plan("trap '' TERM; sleep 600", directory), directory)
    yield started
    await started.supervisor.stop()


async def test_kill_ends_what_does_not_want_to_stop(waiting: Started) -> None:
    start = asyncio.create_task(waiting.supervisor.start())
    while "emitter" not in waiting.supervisor.state.pids:  # noqa: ASYNC110 - it starts processes
        await asyncio.sleep(0.01)
    start.cancel()
    await asyncio.wait({start})
    waiting.supervisor.kill()
    async with asyncio.timeout(5):
        await waiting.supervisor.stop()
    assert all(not pids for pids in waiting.supervisor.state.pids.values())
