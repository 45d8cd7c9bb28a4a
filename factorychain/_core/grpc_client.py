"""A channel to another layer.

Invariants: a call is repeated by the channel only on UNAVAILABLE and only if its proto says that
repeating is safe (`idempotency_level`); pings come less often than any server of the chain minds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import grpc
import orjson
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from factorychain._core.carried import CallCarrier
from factorychain._core.client_interceptor import TracedChannel
from factorychain._core.contracts import CARRY_CALLS, all_contracts
from factorychain._core.grpc_options import Options, options_of_both_ends
from factorychain._core.settings import TransportSettings

MAX_ATTEMPTS = 4
_RETRY = {
    "maxAttempts": MAX_ATTEMPTS,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2.0,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


class GrpcChannel:
    """Connects in the background and for ever; a peer that is away makes calls fail, not this."""

    def __init__(
        self,
        target: str,
        layer: str,
        settings: TransportSettings,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        carries: ServiceDescriptor | None = None,
        streams: int = 1,
    ) -> None:
        """`layer` names the peer in errors. To be made in a running event loop.

        `carries`: the service whose calls that may be carried are, on so many `streams`; more than one
        where the target has several replicas.
        """
        self.name = f"channel to {layer}"
        self.target = target
        options = _options(settings)
        if credentials is None:
            inner = grpc.aio.insecure_channel(target, options)
        else:
            inner = grpc.aio.secure_channel(target, credentials, options)
        self._carrier = None if carries is None else _carrier(inner, carries, streams, layer)
        self.channel = TracedChannel(inner, layer, settings.rpc_timeout_s, self._carrier)

    @property
    def healthy(self) -> bool:
        return True

    @property
    def connected(self) -> bool:
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    @property
    def carrying(self) -> bool:
        """Whether calls that may be carried are."""
        return self._carrier is not None and self._carrier.ready

    async def start(self) -> None:
        self.channel.get_state(try_to_connect=True)
        if self._carrier is not None:
            await self._carrier.start()

    async def stop(self) -> None:
        if self._carrier is not None:
            await self._carrier.stop()
        await self.channel.close()


def _carrier(
    channel: grpc.aio.Channel, service: ServiceDescriptor, streams: int, layer: str
) -> CallCarrier:
    method = service.methods_by_name[CARRY_CALLS]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    # Typed with generated classes nowhere: each service has its own.
    open_stream: Any = channel.stream_stream(
        f"/{service.full_name}/{CARRY_CALLS}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    return CallCarrier(open_stream, lambda frames: request(frames=frames), streams, layer)


@cache
def service_config() -> str:
    """gRPC's service config: which methods are repeated, and spreading over all addresses."""
    repeatable = [
        {"service": contract.service, "method": contract.method}
        for contract in all_contracts()
        if contract.repeat_safe and contract.unary
    ]
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": repeatable, "retryPolicy": _RETRY}],
    }
    return orjson.dumps(config).decode()


def _options(settings: TransportSettings) -> Options:
    return [
        ("grpc.service_config", service_config()),
        ("grpc.enable_retries", 1),
        *options_of_both_ends(settings),
        ("grpc.http2.max_pings_without_data", 0),
        # A restarted peer is found again within a moment.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # No pause, despite its name: how long an attempt may take. A peer or a way that is slow now
        # would never be reached if it were short.
        ("grpc.min_reconnect_backoff_ms", 3000),
        # Otherwise equal channels anywhere in the process share one connection and its fate.
        ("grpc.use_local_subchannel_pool", 1),
    ]
