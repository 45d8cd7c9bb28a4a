"""What somebody without the engine's key can try, at every door of the chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from factorychain._core.ids import Principal
from factorychain._core.keys import TxnKey
from factorychain.agents.v1 import agents_pb2
from factorychain.agents.v1.agents_pb2_grpc import AgentsServiceStub
from factorychain.bridge.v1 import bridge_pb2
from factorychain.bridge.v1.bridge_pb2_grpc import BridgeServiceStub
from factorychain.emitter.v1 import emitter_pb2
from factorychain.emitter.v1.emitter_pb2_grpc import EmitterServiceStub
from factorychain.engine.v1 import engine_pb2
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain.types.v1 import event_pb2, link_pb2
from tests.e2e.chain import Chain
from tests.e2e.sockets import connected, raw_socket

FORGED = "forged-words"
VICTIM = Principal("default", "victim")
THREAD = "victims"
NOBODY = "nobody"
LAYERS = ("engine", "agents", "emitter", "bridge")
# Runs that there never were.
_RUNS = {layer: "r" + letter * 24 for layer, letter in zip((*LAYERS, NOBODY), "bcdef", strict=True)}


async def forge_everywhere(chain: Chain, run: str, thread: str, unchecked: str) -> None:
    """Everything that somebody without the engine's key can try, at every door of the chain.

    A layer that checks nothing is come to through the others: who reaches its own port is believed there
    (docs/security.md). Agents and emitter are tried directly as well, since others come after them.

    Args:
        chain: what is tried.
        run: the victim's.
        thread: the victim's.
        unchecked: the layer that checks nothing; NOBODY: all check.
    """
    own_key = Ed25519PrivateKey.generate()
    kid = TxnKey.parse(chain.data.txn_key).kid
    for forged_run in (run, _RUNS[unchecked]):
        token = txn_token(own_key, kid, forged_run, thread)
        receipts = await emit(chain, token)
        assert unchecked == "emitter" or _all_refused(receipts), receipts
        if unchecked != "bridge":
            receipts = await publish(chain, token)
            assert _all_refused(receipts), receipts
        await _execute(chain, token)
    await _try_to_start(chain, unchecked)


def _all_refused(receipts: list[link_pb2.RunReceipt]) -> bool:
    return [each.refused.reason for each in receipts] == ["TOKEN_INVALID"]


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


async def emit(chain: Chain, token: str) -> list[link_pb2.RunReceipt]:
    """Speaks the link's protocol to the emitter with the token."""

    async def requests(done: asyncio.Event) -> AsyncIterator[emitter_pb2.EmitRequest]:
        yield emitter_pb2.EmitRequest(frames=_forged_frames(token))
        await done.wait()

    async with grpc.aio.insecure_channel(chain.state.emitter) as channel:
        done = asyncio.Event()
        return await _receipts(EmitterServiceStub(channel).Emit(requests(done), timeout=5), done)


async def publish(chain: Chain, token: str) -> list[link_pb2.RunReceipt]:
    """The same to the bridge, as if it came from an emitter."""

    async def requests(done: asyncio.Event) -> AsyncIterator[bridge_pb2.PublishRequest]:
        yield bridge_pb2.PublishRequest(frames=_forged_frames(token))
        await done.wait()

    async with grpc.aio.insecure_channel(chain.state.bridge) as channel:
        done = asyncio.Event()
        return await _receipts(BridgeServiceStub(channel).Publish(requests(done), timeout=5), done)


def _forged_frames(token: str) -> list[link_pb2.RunFrame]:
    started = event_pb2.Event(agent_started=event_pb2.AgentStarted(agent=FORGED, attempt=1))
    spoken = event_pb2.Event(agent_thinking=event_pb2.AgentThinking(text=FORGED))
    events = [
        link_pb2.RunEvent(run_seq=seq, event=event.SerializeToString())
        for seq, event in enumerate((started, spoken), 1)
    ]
    return [
        link_pb2.RunFrame(channel=1, open=link_pb2.RunOpen(token=token)),
        link_pb2.RunFrame(channel=1, events=link_pb2.RunEvents(events=events)),
    ]


Answers = AsyncIterable[emitter_pb2.EmitResponse] | AsyncIterable[bridge_pb2.PublishResponse]


async def _receipts(answers: Answers, done: asyncio.Event) -> list[link_pb2.RunReceipt]:
    """What is answered until the run is refused or all of its events have been dealt with."""
    receipts: list[link_pb2.RunReceipt] = []
    try:
        async for answer in answers:
            receipts += answer.receipts
            if any(r.refused.reason or r.acknowledged.durable_run_seq == 2 for r in receipts):
                done.set()
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error
    return receipts


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


async def _try_to_start(chain: Chain, unchecked: str) -> None:
    """A user token of another key, at the edge and at the engine's own port."""
    now = int(time.time())
    claims = {"sub": VICTIM.user, "aud": "factorychain-api", "iat": now, "exp": now + 600}
    token = jwt.encode(claims, b"not the chain's own secret, but long", "HS256")
    if unchecked != "engine":
        await _engine_refuses(chain, token)
    if unchecked == "bridge":
        # The edge is the bridge's: it lets the forger in, and the engine refuses what it forwards.
        async with connected(chain.state.edge, token) as socket:
            refused = await socket.error(
                "start", agent="echo", input={"text": FORGED}, thread=THREAD
            )
            assert refused["reason"] == "TOKEN_INVALID", refused
        return
    async with raw_socket(chain.state.edge) as socket:
        await socket.send({"op": "auth", "token": token})
        assert await socket.closed() == 4001


async def _engine_refuses(chain: Chain, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await start_as_victim(chain, token)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def start_as_victim(chain: Chain, token: str) -> str:
    """A run of the token's user, asked for at the engine's own port."""
    request = engine_pb2.StartRunRequest(
        agent="echo", input_json=f'{{"text":"{FORGED}"}}', thread=THREAD
    )
    async with grpc.aio.insecure_channel(chain.state.engine) as channel:
        started = await EngineServiceStub(channel).StartRun(
            request, metadata=(("authorization", f"Bearer {token}"),)
        )
    return started.run
