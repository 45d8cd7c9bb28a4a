"""Builds the emitter: the only place that knows every part."""

from __future__ import annotations

from factorychain._core.component import ComponentGroup
from factorychain._core.credentials import Authenticator
from factorychain._core.execution_context import Scope
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.link import LinkClient, LinkServer, ServingOnceLinked
from factorychain._core.settings import EmitterSettings
from factorychain._core.txn_tokens import TxnVerifier
from factorychain.bridge.v1 import bridge_pb2, bridge_pb2_grpc
from factorychain.emitter.v1 import emitter_pb2, emitter_pb2_grpc
from factorychain_emitter.factory import EmitterFactory
from factorychain_emitter.service import EmitterService
from factorychain_emitter.validation import Limits

_SERVICE = emitter_pb2.DESCRIPTOR.services_by_name["EmitterService"]
_SCOPES = frozenset({Scope.RUN, Scope.LIFECYCLE})


async def build(settings: EmitterSettings) -> ComponentGroup:
    """All components of an emitter, in the order in which they start."""
    return EmitterServer(settings).group()


class EmitterServer:
    """One emitter: its parts by name, for the process and for tests."""

    def __init__(self, settings: EmitterSettings) -> None:
        """To be made in a running event loop; opens nothing.

        Raises:
            KeyUnusable: there are no keys to verify transaction tokens with.
        """
        self.settings = settings
        self.verifier = TxnVerifier.from_settings(settings)
        self._reach_bridge()
        self._serve()

    def group(self) -> ComponentGroup:
        return ComponentGroup(
            # The link stops after the server: what was taken is still passed on while it drains.
            [
                self.bridge_channel,
                self.bridge_link,
                self.server,
                ServingOnceLinked(self.bridge_link, self.server.set_serving),
            ],
            name="emitter",
            drain_timeout_s=self.settings.drain_timeout_s,
        )

    def _reach_bridge(self) -> None:
        self.bridge_channel = GrpcChannel(self.settings.bridge_address, "bridge", self.settings)
        stub = bridge_pb2_grpc.BridgeServiceStub(self.bridge_channel.channel)
        self.bridge_link = LinkClient(
            "emitter to bridge",
            stub.Publish,
            lambda frames: bridge_pb2.PublishRequest(frames=frames),
        )

    def _serve(self) -> None:
        settings = self.settings
        limits = Limits(settings.event_max_bytes, settings.output_max_bytes)
        self.factory = EmitterFactory(self.bridge_link, limits)
        self.link = LinkServer(
            "emitter",
            self.factory,
            lambda token: self.verifier.verify(token, _SCOPES),
            lambda receipts: emitter_pb2.EmitResponse(receipts=receipts),
            window_bytes=settings.run_window_bytes,
        )
        service = Service(
            _SERVICE,
            emitter_pb2_grpc.add_EmitterServiceServicer_to_server,
            EmitterService(self.link),
        )
        self.server = GrpcServer(
            settings,
            [service],
            Authenticator(txns=self.verifier),
            drain_timeout_s=settings.drain_timeout_s / 2,
            serving=False,
        )
        self.server.on_drain(self.link.drain)
