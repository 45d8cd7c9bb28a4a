"""How long the edge waits for the engine."""

from __future__ import annotations

from typing import Any

import pytest

from factorychain._core.settings import EngineSettings
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain_bridge.edge.engine import EngineClient
from factorychain_engine.places.starts import WAIT_FOR_INTERRUPT_S

RPC_TIMEOUT_S = EngineSettings().rpc_timeout_s


class Channel:
    """Notes the deadlines of calls."""

    def __init__(self) -> None:
        self.timeouts_s: list[float] = []

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        async def call(request: Any, *, metadata: Any, timeout: float) -> Any:
            self.timeouts_s.append(timeout)
            return pb.StartRunResponse()

        return call

    unary_stream = stream_stream = unary_unary


@pytest.mark.parametrize(
    ("on_busy", "least_s"),
    [
        (pb.ON_BUSY_REJECT, RPC_TIMEOUT_S),
        (pb.ON_BUSY_INTERRUPT, RPC_TIMEOUT_S + WAIT_FOR_INTERRUPT_S),
    ],
)
async def test_a_start_is_waited_for_longer_than_the_engine_takes(
    on_busy: pb.OnBusy.ValueType, least_s: float
) -> None:
    channel: Any = Channel()
    engine = EngineClient(channel, RPC_TIMEOUT_S)
    await engine.start(pb.StartRunRequest(on_busy=on_busy), "token")
    assert channel.timeouts_s[0] > least_s + 5
