"""The real agents service between a fake emitter and a fake engine, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from factorychain._core.component import ComponentGroup
from factorychain._core.contracts import contracts_of
from factorychain._core.credentials import Authenticator, current_run
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.ids import Principal
from factorychain._core.keys import TxnKey, jwks_document
from factorychain._core.link import LinkServer
from factorychain._core.server_interceptor import ServerInterceptor
from factorychain._core.settings import AgentsSettings, TransportSettings
from factorychain._core.txn_tokens import TxnSigner, TxnVerifier
from factorychain._instance.memory_values import MemoryValues
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.agents.v1.agents_pb2_grpc import AgentsServiceStub
from factorychain.emitter.v1 import emitter_pb2, emitter_pb2_grpc
from factorychain.engine.v1 import engine_pb2
from factorychain.errors import ChainDegraded, FactoryChainError
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import Run, RunState
from factorychain_agents.server import AgentsServer
from tests.link_fixture import MemoryBridge, MemoryLog, Tokens
from tests.token_samples import TRUST_DOMAIN, Keys, issued, key_set

MODULE = "tests.integration.agents.samples"
Metadata = tuple[tuple[str, str], ...]


class FakeEmitter(emitter_pb2_grpc.EmitterServiceServicer):
    """Speaks the real link into a log in memory."""

    def __init__(self, log: MemoryLog, verifier: TxnVerifier) -> None:
        tokens = Tokens()
        tokens.verifier = verifier
        self.bridge = MemoryBridge(log, tokens, 256 * 1024)
        self.link = LinkServer(
            "emitter",
            self.bridge,
            tokens.verify,
            lambda receipts: emitter_pb2.EmitResponse(receipts=receipts),
            window_bytes=256 * 1024,
        )

    async def Emit(self, request_iterator: Any, context: object) -> AsyncIterator[Any]:  # noqa: N802
        async for response in self.link.serve(request_iterator):
            yield response


@dataclass
class FakeEngine:
    """Answers GetHistory with what a thread is said to have; keeps values as the engine does."""

    history: dict[str, list[str]] = field(default_factory=dict)
    tokens: list[UserExecutionContext] = field(default_factory=list)
    values: dict[tuple[Principal, str], MemoryValues] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    """By request id, the revision."""
    lost_answers: int = 0

    async def get_history(self, request: Any, context: object) -> engine_pb2.GetHistoryResponse:
        ctx = current_run()
        self.tokens.append(ctx)
        runs = [
            Run(run="r", state=RunState.RUN_STATE_COMPLETED, input_json=f'{{"text": "{text}"}}')
            for text in self.history.get(ctx.thread, [])
        ]
        return engine_pb2.GetHistoryResponse(runs=runs[-request.limit :])

    async def load_value(self, request: Any, context: object) -> engine_pb2.LoadValueResponse:
        value, revision = self.kept().load(request.name)
        return engine_pb2.LoadValueResponse(value=value, revision=revision)

    async def store_value(self, request: Any, context: object) -> engine_pb2.StoreValueResponse:
        value = request.value if request.HasField("value") else None
        if request.request_id not in self.stored:
            revision = self.kept().store(request.name, value, request.revision)
            self.stored[request.request_id] = revision
        if self.lost_answers:
            self.lost_answers -= 1
            raise ChainDegraded("engine")
        return engine_pb2.StoreValueResponse(revision=self.stored[request.request_id])

    def kept(self) -> MemoryValues:
        """Of the calling run's thread."""
        ctx = current_run()
        return self.values.setdefault((ctx.principal, ctx.thread), MemoryValues())


@dataclass
class Chain:
    """What a test works with."""

    agents: AgentsServer
    log: MemoryLog
    engine: FakeEngine
    stub: AgentsServiceStub
    signer: TxnSigner
    count: int = 0

    def token(self, agent: str, run: str = "", **changes: Any) -> UserExecutionContext:
        """A context with its token, as the engine would hand over."""
        self.count += 1
        name = run or "".join(chr(97 + int(digit)) for digit in str(self.count))
        fields: dict[str, Any] = {
            "principal": Principal("acme", "ada"),
            "agent": agent,
            "run": "r" + name.ljust(24, "z"),
            "thread": f"t{name}",
            "deadline_s": time.time() + 300,
            "limits": {},
            "scope": Scope.RUN,
        }
        return issued(self.signer, **(fields | changes))

    def execute(
        self, ctx: UserExecutionContext, data: Mapping[str, Any] | str = "hi", **fields: Any
    ) -> Any:
        """The stream of Execute."""
        whole = {"text": data} if isinstance(data, str) else data
        request = pb.ExecuteRequest(input_json=orjson.dumps(whole).decode(), **fields)
        return self.stub.Execute(request, metadata=metadata(ctx))

    async def run(
        self, ctx: UserExecutionContext, data: Mapping[str, Any] | str = "hi"
    ) -> list[Event]:
        """Runs it to its end; its events in the log."""
        kinds = [each.WhichOneof("life") async for each in self.execute(ctx, data)]
        assert kinds[0] == "accepted"
        assert kinds[-1] == "finished"
        return self.log.events(ctx.run)


def metadata(ctx: UserExecutionContext) -> Metadata:
    return (("txn-token", ctx.token),)


async def refusal(call: Any) -> Any:
    """The error that a stream ends with."""
    with pytest.raises(FactoryChainError) as caught:
        async for _ in call:
            pass
    return caught.value


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with serving(tmp_path, MODULE, isolation="task") as started:
        yield started


@asynccontextmanager
async def serving(tmp_path: Path, *modules: str, **changes: Any) -> AsyncIterator[Chain]:
    """The service with these agents, between its fakes."""
    key = TxnKey.generate()
    jwks = tmp_path / "jwks.json"
    jwks.write_text(jwks_document([key]))
    verifier = TxnVerifier(Keys(key_set(key)), TRUST_DOMAIN)
    log, engine = MemoryLog(), FakeEngine()
    emitter = _serve(tmp_path / "emitter", FakeEmitter(log, verifier), verifier)
    records = _Unary(TransportSettings(listen=f"unix:{tmp_path / 'engine'}"), engine, verifier)
    fields: dict[str, Any] = {
        "listen": f"unix:{tmp_path / 'agents'}",
        "emitter_address": f"unix:{tmp_path / 'emitter'}",
        "engine_address": f"unix:{tmp_path / 'engine'}",
        "txn_jwks_file": jwks,
        "trust_domain": TRUST_DOMAIN,
        "agent_modules": modules,
        "cancel_grace_s": 0.3,
        "alive_interval_s": 0.1,
        "drain_timeout_s": 3,
        "log_format": "console",
    }
    settings = AgentsSettings(**(fields | changes))
    agents = AgentsServer(settings)
    channel = GrpcChannel(settings.listen, "agents", settings)
    group = ComponentGroup([emitter, records, agents.group(), channel])
    await group.start()
    try:
        stub = AgentsServiceStub(channel.channel)
        yield Chain(agents, log, engine, stub, TxnSigner(key, TRUST_DOMAIN))
    finally:
        await group.stop()


def _serve(path: Path, servicer: FakeEmitter, verifier: TxnVerifier) -> GrpcServer:
    service = Service(
        emitter_pb2.DESCRIPTOR.services_by_name["EmitterService"],
        emitter_pb2_grpc.add_EmitterServiceServicer_to_server,
        servicer,
    )
    settings = TransportSettings(listen=f"unix:{path}")
    return GrpcServer(settings, [service], Authenticator(txns=verifier), drain_timeout_s=0)


class _Unary:
    """A gRPC server with few methods, since a whole engine is not needed."""

    name = "fake engine"
    healthy = True

    def __init__(
        self, settings: TransportSettings, engine: FakeEngine, verifier: TxnVerifier
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._verifier = verifier

    async def start(self) -> None:
        interceptor = ServerInterceptor(Authenticator(txns=self._verifier))
        methods = {
            "GetHistory": self._engine.get_history,
            "LoadValue": self._engine.load_value,
            "StoreValue": self._engine.store_value,
        }
        handlers = {
            each.method: interceptor.wrap(
                each,
                grpc.unary_unary_rpc_method_handler(
                    methods[each.method],
                    getattr(engine_pb2, f"{each.method}Request").FromString,
                    getattr(engine_pb2, f"{each.method}Response").SerializeToString,
                ),
            )
            for each in contracts_of(engine_pb2.DESCRIPTOR.services_by_name["EngineService"])
            if each.method in methods
        }
        self._server = grpc.aio.server()
        name = engine_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, handlers),)
        )
        self._server.add_insecure_port(self._settings.listen)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)
