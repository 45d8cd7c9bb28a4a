"""A link whose peer closes connections at an age goes where the peer's name leads by then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from factorychain._core import grpc_server
from factorychain._core.grpc_options import Options
from factorychain._core.settings import TransportSettings
from factorychain.types.v1.event_pb2 import AgentThinking, Event
from tests.link_fixture import BridgeHost, MemoryLog, Tokens, link_to
from tests.name_server import Name


@dataclass
class TcpHost(BridgeHost):
    """A bridge at an address of its own; the log is everybody's."""

    at: str = "127.0.0.1:0"

    @property
    def address(self) -> str:
        return self.at


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are closed after half a second and a little more."""
    of_server = grpc_server._options

    def aged(settings: TransportSettings) -> Options:
        age: Options = [
            ("grpc.max_connection_age_ms", 500),
            ("grpc.max_connection_age_grace_ms", 200),
        ]
        return [*of_server(settings), *age]

    monkeypatch.setattr(grpc_server, "_options", aged)


@pytest.mark.usefixtures("_soon", "quick_lookups")
async def test_it_moves_to_a_new_address_and_nothing_is_lost_or_doubled(
    name: tuple[Name, str],
) -> None:
    known, dns = name
    tokens = Tokens()
    log, new_log = MemoryLog(), MemoryLog()
    old = TcpHost(Path(), tokens, log)
    await old.start()
    assert old.server is not None
    port = old.server.address.rpartition(":")[2]
    new = TcpHost(Path(), tokens, new_log, at=f"127.0.0.2:{port}")
    new_log.runs = log.runs  # what is durable is durable for both
    await new.start()
    ctx, sent = tokens.context("moved"), 0
    async with link_to(f"dns://{dns}/bridge.test:{port}") as link, link.open(ctx) as run:
        async with asyncio.timeout(60):
            while not new_log.opened:
                sent += 1
                await run.send(thought(sent), sent)
                if log.durable(ctx.run):  # the link was up at the old address
                    known.address = "127.0.0.2"
                await asyncio.sleep(0.01)  # as an agent does that takes its time
            await run.flushed()
        assert log.run_seqs(ctx.run) == list(range(1, sent + 1))
    await old.kill()
    await new.kill()


def thought(number: int) -> bytes:
    return Event(agent_thinking=AgentThinking(text=str(number))).SerializeToString()
