"""The bridge as a server: publish over the link, subscribe, resolve, integration, health, drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal, run_id_for
from factorychain._core.keys import TxnKey, jwks_document
from factorychain._core.link import LinkRun
from factorychain._core.settings import BridgeSettings
from factorychain._core.status import from_rpc_error
from factorychain._core.txn_tokens import TxnSigner
from factorychain._core.user_tokens import mint_user_token
from factorychain.bridge.v1 import bridge_pb2 as pb
from factorychain.bridge.v1.bridge_pb2_grpc import BridgeServiceStub
from factorychain.errors import ChainDegraded, RunEnded, ThreadNotFound, TokenInvalid
from factorychain_bridge.server import BridgeServer
from tests.link_fixture import link_to
from tests.nats_fixture import NatsServer
from tests.unit.bridge.samples import ANA, BEN, EPOCH, THREAD, completed, failed, started, thinking
from tests.waiting import until

SECRET = b"a secret of a test, thirty-two bytes or more"
RUN = run_id_for(ANA, "req-1")

Subscribed = grpc.aio.UnaryStreamCall[pb.SubscribeRequest, pb.SubscribeResponse]


class WithoutEngine(BridgeServer):
    """A bridge whose engine knows one thread of everybody's, and is not there otherwise."""

    async def _check_thread(self, thread: str, token: str) -> None:
        if thread != THREAD:
            raise ThreadNotFound


class Bridge:
    """A running bridge, and what its peers need."""

    def __init__(self, server: BridgeServer, key: TxnKey) -> None:
        self.server = server
        self.signer = TxnSigner(key, server.settings.trust_domain)

    @property
    def address(self) -> str:
        return self.server.server.address

    def context(
        self, run: str = RUN, *, principal: Principal = ANA, scope: Scope = Scope.RUN
    ) -> UserExecutionContext:
        return self.signer.issue(
            principal=principal,
            thread=THREAD,
            run=run,
            agent="researcher",
            attempt=1,
            scope=scope,
            base=0,
            base_seq=0,
            base_epoch=EPOCH,
            deadline_s=time.time() + 300,
            limits={},
        )

    def bearer(self, principal: Principal = ANA) -> tuple[tuple[str, str], ...]:
        audience = self.server.settings.user_audience
        token = mint_user_token(SECRET, principal, ttl_s=600, audience=audience)
        return (("authorization", f"Bearer {token}"),)

    def subscribe(self, stub: BridgeServiceStub, principal: Principal = ANA) -> Subscribed:
        request = pb.SubscribeRequest(thread=THREAD)
        return stub.Subscribe(request, metadata=self.bearer(principal))

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[BridgeServiceStub]:
        async with grpc.aio.insecure_channel(self.address) as channel:
            yield BridgeServiceStub(channel)


async def message(stream: Subscribed) -> pb.SubscribeResponse:
    async with asyncio.timeout(20):
        found = await stream.read()
    assert isinstance(found, pb.SubscribeResponse), "the subscription has ended"
    return found


async def gather_events(stream: Subscribed, count: int) -> list[tuple[int, str, str]]:
    """Seq, run and kind of the next events of a subscription."""
    found: list[tuple[int, str, str]] = []
    while len(found) < count:
        events = (await message(stream)).events.events
        found += [(event.seq, event.run, event.WhichOneof("event") or "") for event in events]
    return found


async def flushed(run: LinkRun) -> None:
    async with asyncio.timeout(20):
        await run.flushed()


@pytest.fixture
async def bridge(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Bridge]:
    key = TxnKey.generate()
    jwks, secret = tmp_path / "jwks.json", tmp_path / "secret"
    jwks.write_text(jwks_document([key]))
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET)
    settings = BridgeSettings(
        listen="127.0.0.1:0",
        edge_listen="127.0.0.1:0",
        engine_address=f"unix:{tmp_path}/no-engine",
        nats_url=nats_server.url,
        nats_user="bridge",
        nats_password_file=nats_server.password_file("bridge"),
        user_secret_file=secret,
        txn_jwks_file=jwks,
        recovery_delay_s=0.05,
        live_poll_s=0.1,
        drain_timeout_s=5,
        rpc_timeout_s=1,
    )
    server = WithoutEngine(settings)
    group = server.group()
    await group.start()
    try:
        yield Bridge(server, key)
    finally:
        await group.stop()


async def test_what_an_emitter_publishes_reaches_a_subscriber_and_ends(bridge: Bridge) -> None:
    context = bridge.context()
    async with bridge.stub() as stub, link_to(bridge.address) as link:
        stream = bridge.subscribe(stub)
        assert (await message(stream)).HasField("caught_up")
        async with link.open(context) as run:
            await run.send(started(), 1)
            for n in range(2, 502):
                await run.send(thinking(str(n)), n)
            await run.send(completed(), 502)
            async with asyncio.timeout(20):
                await run.wait_ended()
        found = await gather_events(stream, 502)
        assert [seq for seq, _, _ in found] == list(range(1, 503))
        assert {run_id for _, run_id, _ in found} == {RUN}
        assert found[0][2] == "agent_started"
        assert found[-1][2] == "agent_completed"
        stream.cancel()

    async def is_empty() -> bool:
        held = bridge.server.bridge.statistics()
        return (held.routes, held.writers, held.live.users, held.live.feeds) == (0, 0, 0, 0)

    await until(is_empty)


async def test_a_subscriber_sees_only_their_own_thread_of_that_name(bridge: Bridge) -> None:
    async with bridge.stub() as stub, link_to(bridge.address) as link:
        streams = {who: bridge.subscribe(stub, who) for who in (ANA, BEN)}
        for who in (ANA, BEN):
            context = bridge.context(run_id_for(who, "req-1"), principal=who)
            async with link.open(context) as run:
                await run.send(thinking(f"for {who.user}"), 1)
                await run.send(completed(), 2)
                await run.wait_ended()
        for who, stream in streams.items():
            found = await gather_events(stream, 2)
            assert {run_id for _, run_id, _ in found} == {run_id_for(who, "req-1")}
            stream.cancel()


async def test_a_thread_that_the_engine_does_not_know_is_not_found(bridge: Bridge) -> None:
    async with bridge.stub() as stub:
        request = pb.SubscribeRequest(thread="nobodys")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Subscribe(request, metadata=bridge.bearer()).read()
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert isinstance(from_rpc_error(refused.value), ThreadNotFound)


async def test_a_forged_token_opens_nothing(bridge: Bridge) -> None:
    stranger = Bridge(bridge.server, TxnKey.generate())
    async with link_to(bridge.address) as link, link.open(stranger.context()) as run:
        await run.send(started(), 1)
        with pytest.raises(TokenInvalid):
            await flushed(run)


async def test_a_run_that_has_ended_is_not_settled_again(bridge: Bridge) -> None:
    async with link_to(bridge.address) as link:
        async with link.open(bridge.context()) as run:
            await run.send(completed(), 1)
            await run.wait_ended()
        async with link.open(bridge.context(scope=Scope.LIFECYCLE)) as settling:
            await settling.send(failed(), 0)
            with pytest.raises(RunEnded):
                await flushed(settling)


async def test_a_stream_that_breaks_resumes_without_loss_or_repeat(bridge: Bridge) -> None:
    async with (
        bridge.stub() as stub,
        link_to(bridge.address) as link,
        link.open(bridge.context()) as run,
    ):
        for n in range(1, 301):
            await run.send(thinking(str(n)), n)
            if n in (100, 200):
                # As when a connection is cut: the link opens its runs on another stream.
                for reader in list(bridge.server.service._readers):
                    reader.cancel()
        await run.send(completed(), 301)
        async with asyncio.timeout(20):
            await run.wait_ended()
        stream = bridge.subscribe(stub)
        found = await gather_events(stream, 301)
        assert [seq for seq, _, _ in found] == list(range(1, 302))
        stream.cancel()


async def test_an_open_run_is_resolved_for_its_owner_only(bridge: Bridge) -> None:
    async with (
        bridge.stub() as stub,
        link_to(bridge.address) as link,
        link.open(bridge.context()) as run,
    ):
        await run.send(started(), 1)
        await run.flushed()
        found = await stub.ResolveRun(pb.ResolveRunRequest(run=RUN), metadata=bridge.bearer())
        assert found.thread == THREAD
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResolveRun(pb.ResolveRunRequest(run=RUN), metadata=bridge.bearer(BEN))
        # Not open here for ben: only the engine could say more, and in this test there is none.
        assert isinstance(from_rpc_error(refused.value), ChainDegraded)


async def test_a_bad_thread_id_is_an_invalid_field(bridge: Bridge) -> None:
    async with bridge.stub() as stub:
        request = pb.SubscribeRequest(thread="no spaces")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Subscribe(request, metadata=bridge.bearer()).read()
        assert from_rpc_error(refused.value).reason == "INVALID_FIELD"


async def test_a_run_id_of_another_form_is_a_run_that_is_not_there(bridge: Bridge) -> None:
    async with bridge.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResolveRun(pb.ResolveRunRequest(run="x"), metadata=bridge.bearer())
        assert from_rpc_error(refused.value).reason == "RUN_NOT_FOUND"


async def test_health_and_integration_tell_of_an_outage_and_sockets_stay(
    bridge: Bridge, nats_server: NatsServer
) -> None:
    async with grpc.aio.insecure_channel(bridge.address) as channel:
        stub = BridgeServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stub file knows no calls
        stream = bridge.subscribe(stub)
        assert (await message(stream)).HasField("caught_up")

        async def serving() -> bool:
            said = await health.Check(health_pb2.HealthCheckRequest())
            return bool(said.status == health_pb2.HealthCheckResponse.SERVING)

        async def state() -> str:
            said = await stub.GetIntegration(pb.GetIntegrationRequest())
            assert said.cause
            return pb.IntegrationState.Name(said.state).removeprefix("INTEGRATION_STATE_")

        async def is_away() -> bool:
            return not await serving() and await state() in ("DEGRADED", "FAILED")

        async def is_back() -> bool:
            return await serving() and await state() == "ACTIVE"

        assert await is_back()
        await nats_server.kill()
        await until(is_away)
        await nats_server.start()
        await until(is_back)
        async with link_to(bridge.address) as link, link.open(bridge.context()) as run:
            await run.send(completed(), 1)
            await run.wait_ended()
        assert len(await gather_events(stream, 1)) == 1
        stream.cancel()


async def test_a_failed_integration_asks_to_be_replaced_and_comes_back_if_it_is_not(
    bridge: Bridge, nats_server: NatsServer
) -> None:
    async with aiohttp.ClientSession(bridge.server.edge.address) as http:

        async def statuses() -> tuple[int, int]:
            async with http.get("/healthz") as health, http.get("/readyz") as ready:
                return health.status, ready.status

        async def are(wanted: tuple[int, int]) -> bool:
            return await statuses() == wanted

        assert await statuses() == (200, 200)
        await nats_server.kill()
        await until(lambda: are((200, 503)))
        await until(lambda: are((503, 503)))
        await nats_server.start()
        await until(lambda: are((200, 200)))


async def test_a_drain_ends_long_streams_at_once_and_says_so(bridge: Bridge) -> None:
    async with bridge.stub() as stub, link_to(bridge.address) as link:
        stream = bridge.subscribe(stub)
        assert (await message(stream)).HasField("caught_up")
        async with link.open(bridge.context()) as run:
            await run.send(started(), 1)
            await run.flushed()
            began_s = time.perf_counter()
            await bridge.server.server.stop()
            assert time.perf_counter() - began_s < 2
        assert [kind for _, _, kind in await gather_events(stream, 1)] == ["agent_started"]
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await message(stream)
        assert isinstance(from_rpc_error(ended.value), ChainDegraded)
