"""A channel to another layer.

Invariants: a call is repeated by the channel only on UNAVAILABLE and only if its proto says that
repeating is safe (`idempotency_level`); pings come less often than any server of the chain minds.
"""

from __future__ import annotations

from functools import cache

import grpc
import orjson

from factorychain._core.client_interceptor import TracedChannel
from factorychain._core.contracts import all_contracts
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
    ) -> None:
        """`layer` names the peer in errors. To be made in a running event loop."""
        self.name = f"channel to {layer}"
        self.target = target
        options = _options(settings)
        if credentials is None:
            inner = grpc.aio.insecure_channel(target, options)
        else:
            inner = grpc.aio.secure_channel(target, credentials, options)
        self.channel = TracedChannel(inner, layer, settings.rpc_timeout_s)

    @property
    def healthy(self) -> bool:
        return True

    @property
    def connected(self) -> bool:
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def start(self) -> None:
        self.channel.get_state(try_to_connect=True)

    async def stop(self) -> None:
        await self.channel.close()


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
