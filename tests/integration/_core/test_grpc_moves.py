"""Whoever calls a server that closes connections at an age goes where its name leads by then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from factorychain._core.credentials import Authenticator
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer
from factorychain._core.settings import TransportSettings
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain.types.v1.run_pb2 import Run
from tests.grpc_fixture import Handler, Txns, Users, as_user, services
from tests.name_server import Name


class Engine:
    """Says where it is; a cancel takes as long as it is told to."""

    def __init__(self, listen: str) -> None:
        self.cancelling, self.may_end = asyncio.Event(), asyncio.Event()
        self.started = 0
        script: dict[str, Handler] = {"StartRun": self._start, "CancelRun": self._cancel}
        settings = TransportSettings(
            listen=listen, max_connection_age_s=0.3, max_connection_age_grace_s=60
        )
        self.server = GrpcServer(
            settings, services(script), Authenticator(users=Users(), txns=Txns()), drain_timeout_s=0
        )

    async def _start(self, request: Any, context: object) -> pb.StartRunResponse:
        self.started += 1
        return pb.StartRunResponse(run=request.thread)

    async def _cancel(self, request: Any, context: object) -> pb.CancelRunResponse:
        self.cancelling.set()
        await self.may_end.wait()
        return pb.CancelRunResponse(run=Run(run=request.run))


@pytest.mark.usefixtures("quick_lookups")
async def test_calls_move_to_a_new_address_and_none_fails(name: tuple[Name, str]) -> None:
    known, dns = name
    old = Engine("127.0.0.1:0")
    await old.server.start()
    port = old.server.address.rpartition(":")[2]
    new = Engine(f"127.0.0.2:{port}")
    await new.server.start()
    channel = GrpcChannel(
        f"dns://{dns}/engine.test:{port}", "engine", TransportSettings(rpc_timeout_s=60)
    )
    stub, ada = EngineServiceStub(channel.channel), as_user("ada")
    cancel = asyncio.ensure_future(stub.CancelRun(pb.CancelRunRequest(run="r"), metadata=ada))
    await old.cancelling.wait()
    known.address = "127.0.0.2"
    calls = 0
    async with asyncio.timeout(60):
        while not new.started:  # each is answered, wherever it goes
            calls += 1
            answer = await stub.StartRun(pb.StartRunRequest(thread=f"t{calls}"), metadata=ada)
            assert answer.run == f"t{calls}"
    assert old.started + new.started == calls, "none was made twice"
    old.may_end.set()
    assert (await cancel).run.run == "r", "what was open ends where it began"
    for each in (channel, old.server, new.server):
        await each.stop()
