"""With any one layer's check switched off, a forged event still reaches no other user's socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

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
from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import connected, raw_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORGED = "forged-words"
VICTIM = Principal("default", "victim")
THREAD = "victims"
_UNCHECKED = Path(__file__).parent / "unchecked"


@pytest.mark.parametrize("layer", ["engine", "agents", "emitter", "bridge"])
async def test_a_forged_event_reaches_nobody(tmp_path: Path, layer: str) -> None:
    env = {"UNCHECKED_LAYER": layer, "PYTHONPATH": f"{_UNCHECKED}:{Path.cwd()}"}
    async with (
        running_chain(tmp_path / "chain", env=env) as chain,
        connected(chain.state.edge, chain.token(VICTIM.user)) as victim,
    ):
        assert f"UNCHECKED {layer}" in chain.log(), "the check was not switched off"
        genuine = await victim.start("steps", "40:50", thread=THREAD)
        await victim.event(genuine["run"], "agent_thinking")
        await _forge_everywhere(chain, genuine["run"])
        await victim.ending(genuine["run"])
        await victim.result("ping")
        seen = "".join(victim.texts)
        await victim.result("subscribe", thread=THREAD, after=0)
        await victim.wait_for(lambda f: f["op"] == "caught_up")
    assert FORGED not in seen
    assert FORGED not in "".join(victim.texts)
    assert {event["run"] for event in victim.events()} == {genuine["run"]}


async def test_the_forgery_works_when_nothing_checks(chain: Chain) -> None:
    """The oracle: the same forgery with the engine's real key does reach the socket."""
    async with connected(chain.state.edge, chain.token(VICTIM.user)) as victim:
        await victim.result("subscribe", thread=THREAD, after=0)
        key = TxnKey.parse(chain.data.txn_key)
        await _emit(chain, _txn_token(key.private, key.kid, "r" + "a" * 24))
        await victim.wait_for(lambda f: FORGED in str(f))


async def _forge_everywhere(chain: Chain, run: str) -> None:
    """Everything that somebody without the engine's key can try, at every door of the chain."""
    own_key = Ed25519PrivateKey.generate()
    kid = TxnKey.parse(chain.data.txn_key).kid
    for forged_run in (run, "r" + "b" * 24):
        token = _txn_token(own_key, kid, forged_run)
        await _emit(chain, token)
        await _execute(chain, token)
    await _start_as_victim(chain)


def _txn_token(key: Ed25519PrivateKey, kid: str, run: str) -> str:
    now = int(time.time())
    tctx = {
        "tenant": VICTIM.tenant, "thread": THREAD, "agent": "echo", "attempt": 1, "limits": {},
        "base": 0, "base_seq": 0, "base_epoch": now * 1000, "deadline": now + 300,
    }  # fmt: skip
    claims = {
        "iat": now, "exp": now + 360, "aud": "factorychain", "txn": run, "sub": VICTIM.user,
        "scope": "run", "req_wl": "engine", "tctx": tctx, "rctx": {},
    }  # fmt: skip
    return jwt.encode(claims, key, "EdDSA", headers={"typ": "txntoken+jwt", "kid": kid})


async def _emit(chain: Chain, token: str) -> None:
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


async def _start_as_victim(chain: Chain) -> None:
    """A user token of another key, on a socket; the engine's own door is the root of identity."""
    now = int(time.time())
    claims = {"sub": VICTIM.user, "aud": "factorychain-api", "iat": now, "exp": now + 600}
    token = jwt.encode(claims, b"not the chain's own secret, but long", "HS256")
    if "UNCHECKED bridge" in chain.log():
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
