"""Credentials over real sockets, as each contract demands them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from factorychain._core.credentials import current_run, current_user, current_user_token
from factorychain.agents.v1 import agents_pb2
from factorychain.engine.v1 import engine_pb2
from factorychain.errors import TokenExpired, TokenInvalid
from factorychain.types.v1 import run_pb2
from tests.grpc_fixture import Wire, as_user


async def whoami(request: Any, context: Any) -> engine_pb2.GetRunResponse:
    """Answers the caller's name as the run's id."""
    return engine_pb2.GetRunResponse(run=run_pb2.Run(run=current_user().principal.user))


async def test_a_handler_knows_the_user_whose_token_the_call_carried(wire: Wire) -> None:
    tokens: list[str] = []

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        tokens.append(current_user_token())
        return await whoami(request, context)

    wire.script["GetRun"] = get_run
    # Verified anew, then from the cache.
    for _ in range(2):
        response = await wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("alice"))
        assert response.run.run == "alice"
    assert tokens == ["user:alice"] * 2


async def test_users_who_call_at_once_on_one_channel_are_each_themselves(wire: Wire) -> None:
    barrier = asyncio.Barrier(20)

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        await barrier.wait()
        return await whoami(request, context)

    wire.script["GetRun"] = get_run
    names = [f"u{number}" for number in range(20)]

    async def ask(name: str) -> str:
        response = await wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=as_user(name))
        return response.run.run

    assert await asyncio.gather(*map(ask, names)) == names


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ((), TokenInvalid),
        ((("authorization", "Bearer nonsense"),), TokenInvalid),
        ((("authorization", "user:alice"),), TokenInvalid),
        ((("txn-token", "run:r1"),), TokenInvalid),
        ((("authorization", "Bearer run:r1"),), TokenInvalid),
        ((("authorization", "Bearer user:expired"),), TokenExpired),
    ],
)
async def test_without_a_good_user_token_no_handler_runs(
    wire: Wire, metadata: tuple[tuple[str, str], ...], error: type[Exception]
) -> None:
    # No script: a handler that ran would answer INTERNAL.
    with pytest.raises(error):
        await wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=metadata)
    with pytest.raises(error):
        await wire.engine.WatchRun(engine_pb2.WatchRunRequest(), metadata=metadata).read()


@pytest.mark.parametrize("metadata", [(), (("txn-token", "user:alice"),), as_user("alice")])
async def test_without_a_good_transaction_token_no_handler_runs(
    wire: Wire, metadata: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(TokenInvalid):
        await wire.agents.Cancel(agents_pb2.CancelRequest(), metadata=metadata)
    with pytest.raises(TokenInvalid):
        await wire.agents.Execute(agents_pb2.ExecuteRequest(), metadata=metadata).read()


async def test_a_handler_knows_the_run_of_the_transaction_token(wire: Wire) -> None:
    seen: list[str] = []

    async def cancel(request: Any, context: Any) -> agents_pb2.CancelResponse:
        seen.append(current_run().run)
        return agents_pb2.CancelResponse()

    async def execute(request: Any, context: Any) -> AsyncIterator[agents_pb2.ExecuteResponse]:
        seen.append(current_run().run)
        yield agents_pb2.ExecuteResponse()
        # Still known after a message went out.
        seen.append(current_run().run)

    wire.script.update(Cancel=cancel, Execute=execute)
    await wire.agents.Cancel(agents_pb2.CancelRequest(), metadata=(("txn-token", "run:r1"),))
    call = wire.agents.Execute(agents_pb2.ExecuteRequest(), metadata=(("txn-token", "run:r2"),))
    async for _ in call:
        pass
    assert seen == ["r1", "r2", "r2"]


async def test_calls_for_peers_and_anybody_need_no_token_and_know_no_user(wire: Wire) -> None:
    refused: list[str] = []

    async def list_agents(request: Any, context: Any) -> agents_pb2.ListAgentsResponse:
        with pytest.raises(RuntimeError, match="no user here"):
            current_user()
        refused.append("user")
        return agents_pb2.ListAgentsResponse()

    async def get_keys(request: Any, context: Any) -> engine_pb2.GetKeysResponse:
        return engine_pb2.GetKeysResponse(jwks_json="{}")

    wire.script.update(ListAgents=list_agents, GetKeys=get_keys)
    await wire.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=as_user("alice"))
    assert (await wire.engine.GetKeys(engine_pb2.GetKeysRequest())).jwks_json == "{}"
    assert refused == ["user"]


async def test_a_stream_ends_when_its_token_expires(wire: Wire) -> None:
    closed = asyncio.Event()

    async def watch(request: Any, context: Any) -> AsyncIterator[engine_pb2.WatchRunResponse]:
        try:
            yield engine_pb2.WatchRunResponse()
            await asyncio.Event().wait()
        finally:
            closed.set()

    wire.script["WatchRun"] = watch
    wire.users.lifetime_s = 0.3
    call = wire.engine.WatchRun(engine_pb2.WatchRunRequest(), metadata=as_user("alice"))
    await call.read()
    with pytest.raises(TokenExpired):
        await call.read()
    assert closed.is_set()
