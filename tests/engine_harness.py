"""Engines over a real NATS and real gRPC, between an agents layer and an emitter that a test directs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from factorychain._core.component import ComponentGroup
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.ids import Principal
from factorychain._core.jetstream import JetStream
from factorychain._core.jwks import JwksFile
from factorychain._core.keys import TxnKey, jwks_document, new_secret, read_secret
from factorychain._core.log_reader import ensure_event_log
from factorychain._core.settings import EngineSettings
from factorychain._core.txn_tokens import TxnVerifier
from factorychain._core.user_tokens import mint_user_token
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.engine.v1 import engine_pb2_grpc
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.server import EngineServer
from tests.engine_peers import Agents, Emitter, Log
from tests.nats_fixture import NatsServer
from tests.token_samples import ADA, TRUST_DOMAIN
from tests.waiting import until, until_true

BOB = Principal("acme", "bob")


class Engine:
    """One running engine and a client of it."""

    def __init__(self, server: EngineServer, group: ComponentGroup, secret: bytes) -> None:
        self.server = server
        self.group = group
        self._secret = secret
        self._channel: GrpcChannel | None = None
        self._stub: engine_pb2_grpc.EngineServiceStub | None = None

    async def start(self) -> None:
        await self.group.start()
        channel = GrpcChannel(
            self.server.server.address,
            "engine",
            self.server.settings,
            carries=pb.DESCRIPTOR.services_by_name["EngineService"],
        )
        self._channel, self._stub = channel, engine_pb2_grpc.EngineServiceStub(channel.channel)
        await channel.start()
        # Starts come as the edge's do.
        await until_true(lambda: channel.carrying)

    async def stop(self) -> None:
        if self._channel is not None:
            await self._channel.stop()
        await self.group.stop()

    async def crash(self) -> None:
        """As SIGKILL would: nothing is handed over, the heartbeat stays until it expires."""
        await self.server.nats.stop()
        await self.stop()

    @property
    def stub(self) -> Any:
        # Any: the generated stub is typed for the synchronous API.
        assert self._stub is not None
        return self._stub

    def as_user(self, principal: Principal, **claims: str) -> tuple[tuple[str, str], ...]:
        audience = self.server.settings.user_audience
        token = mint_user_token(
            self._secret, principal, ttl_s=600, audience=audience, further=claims
        )
        return (("authorization", f"Bearer {token}"),)

    async def start_run(self, principal: Principal = ADA, **fields: Any) -> pb.StartRunResponse:
        request = pb.StartRunRequest(**{"input_json": '{"text":"Why?"}', **fields})
        answer: pb.StartRunResponse = await self.stub.StartRun(
            request, metadata=self.as_user(principal)
        )
        return answer

    async def run(self, run: str, principal: Principal = ADA) -> Run:
        answer = await self.stub.GetRun(pb.GetRunRequest(run=run), metadata=self.as_user(principal))
        found: Run = answer.run
        return found

    async def cancel(self, run: str, principal: Principal = ADA) -> Run:
        answer = await self.stub.CancelRun(
            pb.CancelRunRequest(run=run), metadata=self.as_user(principal)
        )
        found: Run = answer.run
        return found

    async def active(self, principal: Principal = ADA) -> list[str]:
        """The runs that hold places."""
        return [each.run for each in (await self.server.users.read(principal)).record.active]

    async def waiting(self, principal: Principal = ADA) -> list[str]:
        """The runs that wait for places."""
        return [each.run for each in (await self.server.users.read(principal)).record.queue]

    async def left(self, principal: Principal = ADA) -> list[str]:
        """The runs that hold places, and those that wait, at one moment."""
        record = (await self.server.users.read(principal)).record
        return [each.run for each in record.active] + [each.run for each in record.queue]

    async def until_active(self, runs: list[str]) -> None:
        async def is_so() -> bool:
            return await self.active() == runs

        await until(is_so)

    async def until_passes(self, passes: int) -> None:
        """The clean-up has looked so many times since the start."""
        await until_true(lambda: self.server.clean_up.passes >= passes)

    def looks_after(self, run: str, principal: Principal = ADA) -> bool:
        return self.server.runs.find(principal, run) is not None


class Chain:
    """NATS, agents and emitter, and as many engines as a test wants."""

    def __init__(self, directory: Path, nats: NatsServer, js: JetStream) -> None:
        self.log = Log(js)
        self.nats = nats
        self._directory = directory
        self._key = TxnKey.generate()
        self._write_keys()
        self.verifier = TxnVerifier(JwksFile(directory / "jwks.json"), TRUST_DOMAIN)
        self.agents = Agents(self.log, self.verifier)
        self.emitter = Emitter(self.log, self.verifier)
        self._engines: list[Engine] = []

    def _write_keys(self) -> None:
        (self._directory / "key.pem").write_bytes(self._key.to_pem())
        (self._directory / "jwks.json").write_text(jwks_document([self._key]))
        (self._directory / "secret").write_text(new_secret())

    async def engine(self, **settings: Any) -> Engine:
        """One more engine."""
        server = EngineServer(self.settings(**settings))
        engine = Engine(server, server.group(), read_secret(self._directory / "secret"))
        self._engines.append(engine)
        await engine.start()
        return engine

    def settings(self, **changes: Any) -> EngineSettings:
        values: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "agents_address": self.agents.address,
            "emitter_address": self.emitter.address,
            "nats_url": self.nats.url,
            "nats_user": "engine",
            "nats_password_file": self.nats.password_file("engine"),
            "txn_key_file": self._directory / "key.pem",
            "txn_jwks_file": self._directory / "jwks.json",
            "trust_domain": TRUST_DOMAIN,
            "user_secret_file": self._directory / "secret",
            "cleanup_interval_s": 0.1,
            "heartbeat_ttl_s": 1,
            "drain_timeout_s": 2,
        }
        return EngineSettings(**{**values, **changes})

    async def restart_agents(self, boot_id: str) -> Agents:
        """Another process at the same address, which knows none of the runs."""
        address = self.agents.address
        await self.agents.stop()
        self.agents = Agents(self.log, self.verifier, boot_id)
        await self.agents.start(address)
        return self.agents

    async def stop(self) -> None:
        for engine in self._engines:
            await engine.stop()
        await self.agents.stop()
        await self.emitter.stop()


@asynccontextmanager
async def running_chain(directory: Path, nats: NatsServer) -> AsyncIterator[Chain]:
    async with nats.connected("bridge") as js:
        await ensure_event_log(js, 1, max_age_s=3600)
        chain = Chain(directory, nats, js)
        await chain.agents.start()
        await chain.emitter.start()
        try:
            yield chain
        finally:
            await chain.stop()
