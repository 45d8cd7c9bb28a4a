"""What somebody without the engine's key can try, at every door of the chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from factorychain._core.ids import Principal
from factorychain._core.keys import TxnKey
from factorychain.agents.v1 import agents_pb2
from factorychain.agents.v1.agents_pb2_grpc import AgentsServiceStub
from factorychain.emitter.v1 import emitter_pb2
from factorychain.emitter.v1.emitter_pb2_grpc import EmitterServiceStub
from factorychain.engine.v1 import engine_pb2
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain.types.v1 import event_pb2, link_pb2
from tests.e2e.chain import Chain
from tests.e2e.sockets import raw_socket

FORGED = "forged-words"
VICTIM = Principal("default", "victim")
THREAD = "victims"
# Runs that there never were.
_RUNS = {
    layer: "r" + letter * 24
    for layer, letter in zip(("engine", "agents", "emitter", "bridge"), "bcde", strict=True)
}


async def forge_everywhere(chain: Chain, run: str, thread: str, unchecked: str) -> None:
    """Everything that somebody without the engine's key can try, at every door of the chain.

    `run` and `thread` are the victim's; `unchecked` is the layer that checks nothing.
    """
    own_key = Ed25519PrivateKey.generate()
    kid = TxnKey.parse(chain.data.txn_key).kid
    for forged_run in (run, _RUNS[unchecked]):
        token = txn_token(own_key, kid, forged_run, thread)
        await emit(chain, token)
        await _execute(chain, token)
    await _start_as_victim(chain, unchecked)


def txn_token(key: Ed25519PrivateKey, kid: str, run: str, thread: str = THREAD) -> str:
    now = int(time.time())
    tctx = {
        "tenant": VICTIM.tenant, "thread": thread, "agent": "echo", "attempt": 1, "limits": {},
        "base": 0, "base_seq": 0, "base_epoch": now * 1000, "deadline": now + 300,
    }  # fmt: skip
    claims = {
        "iat": now, "exp": now + 360, "aud": "factorychain", "txn": run, "sub": VICTIM.user,
        "scope": "run", "req_wl": "engine", "tctx": tctx, "rctx": {},
    }  # fmt: skip
    return jwt.encode(claims, key, "EdDSA", headers={"typ": "txntoken+jwt", "kid": kid})


async def emit(chain: Chain, token: str) -> None:
    """Speaks the link's protocol to the emitter with the token."""
    started = event_pb2.Event(agent_started=event_pb2.AgentStarted(agent=FORGED, attempt=1))
    spoken = event_pb2.Event(agent_thinking=event_pb2.AgentThinking(text=FORGED))
    events = [
        link_pb2.RunEvent(run_seq=seq, event=event.SerializeToString())
        for seq, event in enumerate((started, spoken), 1)
    ]
    frames = [
        link_pb2.RunFrame(channel=1, open=link_pb2.RunOpen(token=token)),
        link_pb2.RunFrame(channel=1, events=link_pb2.RunEvents(events=events)),
    ]

    async def requests() -> AsyncIterator[emitter_pb2.EmitRequest]:
        yield emitter_pb2.EmitRequest(frames=frames)
        await asyncio.sleep(1.0)

    async with grpc.aio.insecure_channel(chain.state.emitter) as channel:
        try:
            async for _ in EmitterServiceStub(channel).Emit(requests(), timeout=5):
                pass
        except grpc.aio.AioRpcError as error:
            assert error.code() is not grpc.StatusCode.UNIMPLEMENTED, error


async def _execute(chain: Chain, token: str) -> None:
    request = agents_pb2.ExecuteRequest(input_json=f'{{"text":"{FORGED}"}}')
    metadata = (("txn-token", token),)
    async with grpc.aio.insecure_channel(chain.state.agents) as channel:
        try:
            stub = AgentsServiceStub(channel)
            async for _ in stub.Execute(request, metadata=metadata, timeout=3):
                pass
        except grpc.aio.AioRpcError as error:
            assert error.code() in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.UNAVAILABLE,
                # Unchecked agents find that this run is theirs already.
                grpc.StatusCode.ALREADY_EXISTS,
                # Or they have given it up, since the emitter refused it.
                grpc.StatusCode.NOT_FOUND,
            ), error


async def _start_as_victim(chain: Chain, unchecked: str) -> None:
    """A user token of another key, on a socket; the engine's own door is the root of identity."""
    now = int(time.time())
    claims = {"sub": VICTIM.user, "aud": "factorychain-api", "iat": now, "exp": now + 600}
    token = jwt.encode(claims, b"not the chain's own secret, but long", "HS256")
    if unchecked == "bridge":
        # The edge is the bridge's: it lets the forger in, and the engine refuses what it forwards.
        await _engine_refuses(chain, token)
        return
    async with raw_socket(chain.state.edge) as socket:
        await socket.send({"op": "auth", "token": token})
        assert await socket.closed() == 4001


async def _engine_refuses(chain: Chain, token: str) -> None:
    request = engine_pb2.StartRunRequest(agent="echo", input_json='{"text":"x"}', thread=THREAD)
    async with grpc.aio.insecure_channel(chain.state.engine) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EngineServiceStub(channel).StartRun(
                request, metadata=(("authorization", f"Bearer {token}"),)
            )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
