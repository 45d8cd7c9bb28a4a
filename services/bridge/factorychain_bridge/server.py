"""The bridge's composition: the only place that builds things."""

from __future__ import annotations

import time
from functools import partial
from typing import cast

from factorychain._core.component import Component, ComponentGroup, TaskSet
from factorychain._core.credentials import Authenticator
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.ids import Principal
from factorychain._core.jetstream import JetStream
from factorychain._core.keys import read_secret
from factorychain._core.link import LinkServer
from factorychain._core.log_reader import ThreadLogReader, ensure_event_log, try_event_log
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.settings import BridgeSettings
from factorychain._core.txn_tokens import TxnVerifier
from factorychain._core.user_tokens import UserVerifier, mint_user_token
from factorychain.bridge.v1 import bridge_pb2 as pb
from factorychain.bridge.v1.bridge_pb2_grpc import add_BridgeServiceServicer_to_server
from factorychain.engine.v1 import engine_pb2
from factorychain_bridge.bridge import AgentWebSocketBridge
from factorychain_bridge.edge.engine import EngineClient
from factorychain_bridge.edge.http import Readiness
from factorychain_bridge.edge.server import EdgeServer
from factorychain_bridge.history import LogHistory
from factorychain_bridge.hub import Hub
from factorychain_bridge.integration import Integration
from factorychain_bridge.log_watch import LogWatch
from factorychain_bridge.recovery import Recovery
from factorychain_bridge.service import BridgeService
from factorychain_bridge.writer import LogAccess

_SERVICE = pb.DESCRIPTOR.services_by_name["BridgeService"]
_SCOPES = frozenset(Scope)
# So that the starts of one bridge are spread over the engines.
_ENGINE_STREAMS = 4


async def build(settings: BridgeSettings) -> ComponentGroup:
    """All components of a bridge, in the order in which they start."""
    return BridgeServer(settings).group()


class BridgeServer:
    """One bridge: its parts by name, for the process and for tests."""

    def __init__(self, settings: BridgeSettings) -> None:
        """To be made in a running event loop; opens nothing.

        Raises:
            KeyUnusable: A key or secret that is configured cannot be used.
        """
        self.settings = settings
        self.users = UserVerifier.from_settings(settings)
        self.txns = TxnVerifier.from_settings(settings)
        # Appends and reads must not wait behind what is live for a thousand users.
        self.log_connection = NatsConnection.from_settings(settings, "bridge-log")
        self.live_connection = NatsConnection.from_settings(settings, "bridge-live")
        self.js = JetStream(self.log_connection, replicas=settings.nats_replicas)
        self.reader = ThreadLogReader(self.js, settings.log_shards)
        self.integration = Integration(
            attempts=settings.recovery_attempts,
            delay_s=settings.recovery_delay_s,
            now_s=time.time,
        )
        self.recovery = Recovery(
            self.integration,
            (self.log_connection, self.live_connection),
            self._probe,
            partial(try_event_log, self.js, settings.log_shards),
            LogWatch(
                self.js,
                settings.log_shards,
                max_age_s=settings.log_max_age_s,
                max_bytes=self.settings.log_max_bytes,
            ),
            look_s=settings.storage_look_s,
        )
        self.hub = Hub(
            self.live_connection,
            LogHistory(self.reader),
            poll_s=settings.live_poll_s,
            buffer_max_bytes=settings.socket_queue_bytes // 4,
        )
        access = LogAccess(
            self.reader, self.recovery, TaskSet("log writers"), settings.batch_max_bytes
        )
        self.bridge = AgentWebSocketBridge(access, self.hub, self.integration)
        self.engine_channel = GrpcChannel(
            settings.engine_address,
            "engine",
            settings,
            carries=engine_pb2.DESCRIPTOR.services_by_name["EngineService"],
            streams=_ENGINE_STREAMS,
        )
        self.engine = EngineClient(self.engine_channel.channel, settings.rpc_timeout_s)
        self.service = self._service()
        self.server = self._grpc_server()
        self.edge = self._edge()

    def group(self) -> ComponentGroup:
        components: list[Component] = [
            self.users,
            self.log_connection,
            self.live_connection,
            self.hub,
            self.bridge,
            self.engine_channel,
            self.server,
            # Now that there is a server to say so, find out whether everything works.
            self.recovery,
            self.edge,
        ]
        timeout_s = self.settings.drain_timeout_s
        return ComponentGroup(components, name="bridge", drain_timeout_s=timeout_s)

    # --- parts ---------------------------------------------------------------------------------

    def _service(self) -> BridgeService:
        link = LinkServer(
            "bridge",
            self.bridge,
            self._verify,
            lambda receipts: pb.PublishResponse(receipts=receipts),
            window_bytes=self.settings.run_window_bytes,
        )
        return BridgeService(
            self.bridge,
            link,
            self._thread_of_run,
            self._check_thread,
            queue_bytes=self.settings.socket_queue_bytes,
        )

    def _grpc_server(self) -> GrpcServer:
        server = GrpcServer(
            self.settings,
            [Service(_SERVICE, add_BridgeServiceServicer_to_server, self.service)],
            Authenticator(users=self.users, txns=self.txns),
            drain_timeout_s=self.settings.drain_timeout_s / 2,
            serving=False,
        )
        server.on_drain(self.service.drain)
        self.integration.on_change(lambda _: server.set_serving(self.integration.active))
        return server

    def _edge(self) -> EdgeServer:
        return EdgeServer(
            self.settings,
            verifier=self.users,
            hub=self.hub,
            connect=self.hub.connect,
            engine=self.engine,
            readiness=self._readiness,
            mint=self._mint if self.settings.user_secret_file else None,
        )

    # --- what they ask -------------------------------------------------------------------------

    async def _probe(self) -> None:
        shards = self.settings.log_shards
        await ensure_event_log(
            self.js,
            shards,
            max_age_s=self.settings.log_max_age_s,
            max_bytes=self.settings.log_max_bytes,
            replicas=self.settings.nats_replicas,
        )
        await self.live_connection.flush()

    def _verify(self, token: str) -> UserExecutionContext:
        return self.txns.verify(token, _SCOPES)

    async def _thread_of_run(self, run: str, token: str) -> str:
        found = await self.engine.call("GetRun", engine_pb2.GetRunRequest(run=run), token)
        return cast("engine_pb2.GetRunResponse", found).run.thread

    async def _check_thread(self, thread: str, token: str) -> None:
        await self.engine.call(
            "GetThread", engine_pb2.GetThreadRequest(thread=thread, page_size=1), token
        )

    async def _readiness(self) -> Readiness:
        integration = self.integration
        details = {
            "integration": integration.state.value,
            "cause": integration.cause,
            "since_s": integration.since_s,
            "recovery_attempts": integration.attempts,
            "engine_connected": self.engine_channel.connected,
        }
        return Readiness(integration.active, details, alive=self.recovery.healthy)

    def _mint(self, principal: Principal, ttl_s: float) -> str:
        secret_file = self.settings.user_secret_file
        assert secret_file is not None, "made only with a secret"
        return mint_user_token(
            read_secret(secret_file),
            principal,
            ttl_s=ttl_s,
            audience=self.settings.user_audience,
            issuer=self.settings.user_issuer,
            tenant_claim=self.settings.tenant_claim,
        )
