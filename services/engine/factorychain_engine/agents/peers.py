"""The agents layer as the engine calls it: any replica for a new run, then the one that took it.

Invariant: a run counts as refused only if agents themselves answered so. Whatever else goes wrong
with a call (a broken connection, no answer in time) says nothing about the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import grpc

from factorychain._core.credentials import TXN_HEADER
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.logging import get_logger
from factorychain._core.status import DETAILS_KEY
from factorychain._core.telemetry import span
from factorychain.agents.v1 import agents_pb2
from factorychain.errors import (
    Capacity,
    ChainDegraded,
    FactoryChainError,
    RunExists,
    RunNotFound,
    TokenExpired,
    TokenInvalid,
)
from factorychain.types.v1.run_pb2 import AgentInfo
from factorychain_engine.agents.layer import Life, NotAccepted
from factorychain_engine.agents.replicas import LAYER, Replica, Replicas
from factorychain_engine.agents.streamed_life import LifeCall, StreamedLife, read_life
from factorychain_engine.remembered import Remembered

log = get_logger(__name__)

T = TypeVar("T")

REMEMBERED_RUNS: Final = 1024
"""So many starts whose answer was lost are remembered with whom was asked."""


class AgentsPeers:
    """Calls to the agents layer (`layer.Agents`)."""

    def __init__(self, replicas: Replicas, answer_within_s: float) -> None:
        self._replicas = replicas
        self._answer_within_s = answer_within_s
        self._in_doubt: Remembered[str] = Remembered(REMEMBERED_RUNS)

    async def ready(self) -> None:
        """Return when there is somebody to ask to take a run (`Replicas.ready`)."""
        await self._replicas.ready()

    async def list_agents(self) -> Sequence[AgentInfo]:
        """The agents of one replica; all have the same.

        Raises:
            ChainDegraded: the layer is away.
        """
        there = await self._replicas.connected()
        if not there:
            raise ChainDegraded(LAYER)
        listed = await there[0].stub.ListAgents(agents_pb2.ListAgentsRequest())
        return list(listed.agents)

    # --- a new run --------------------------------------------------------------------------

    async def execute(
        self, context: UserExecutionContext, request: agents_pb2.ExecuteRequest, trace: str
    ) -> Life:
        """Have the run executed; returns when it was accepted (`layer.Agents`).

        A replica that answers that it has no room, or takes no runs now, does not have the run: the
        next is asked.
        """
        refusal: FactoryChainError = ChainDegraded(LAYER)
        with span("execute_run", parent=trace):
            for address in self._replicas.order().addresses:
                try:
                    return await self._execute_at(address, context, request)
                except NotAccepted as refused:
                    refusal = refused.refusal
                    if not self._is_of_the_replica(address, refusal):
                        raise
        # What each of them said is known by now; together they may have room sooner than the last one.
        raise NotAccepted(self._replicas.refusal(self._replicas.order()) or refusal)

    async def _execute_at(
        self, address: str, context: UserExecutionContext, request: agents_pb2.ExecuteRequest
    ) -> Life:
        balance = self._replicas.balance
        balance.asked(address)
        took = False
        try:
            async with self._replicas.using(self._replicas.find(address)) as replica:
                call = replica.stub.Execute(request, metadata=_metadata(context))
                life = await self._accepted(call, replica)
            took = True
            return life
        except RunExists as error:
            # It was accepted before: the same call came twice.
            self._in_doubt.put(_attempt(context), address)
            raise ChainDegraded(LAYER) from error
        except FactoryChainError as error:
            if _was_answered(error):
                raise NotAccepted(_for_the_user(error)) from error
            self._in_doubt.put(_attempt(context), address)
            raise
        finally:
            balance.answered(address, took=took)

    def _is_of_the_replica(self, address: str, refusal: FactoryChainError) -> bool:
        """Whether another replica may take what this one refused so."""
        if isinstance(refusal, Capacity):
            self._replicas.balance.refused_full(address, refusal.retry_after_s)
        elif isinstance(refusal, ChainDegraded):
            self._replicas.balance.refused_all(address)
        else:
            return False
        return True

    # --- a run that was accepted ------------------------------------------------------------

    async def attach(self, context: UserExecutionContext, address: str, trace: str) -> Life:
        """Follow a run that was accepted at `address` (`layer.Agents`)."""

        async def attach(replica: Replica) -> Life:
            call = replica.stub.Attach(agents_pb2.AttachRequest(), metadata=_metadata(context))
            return await self._accepted(call, replica)

        with span("attach_run", parent=trace):
            return await self._ask(context, address, attach)

    async def cancel(
        self, context: UserExecutionContext, address: str, reason: str, trace: str
    ) -> None:
        """Tell the agent to stop (`layer.Agents`)."""

        async def cancel(replica: Replica) -> None:
            request = agents_pb2.CancelRequest(reason=reason)
            # Its answer, empty, says that the agent's code was told.
            await replica.stub.Cancel(request, metadata=_metadata(context))

        with span("cancel_run", parent=trace):
            await self._ask(context, address, cancel)

    async def respond(
        self,
        context: UserExecutionContext,
        address: str,
        request: str,
        value_json: str,
        trace: str,
    ) -> None:
        """Hand over the user's answer (`layer.Agents`)."""

        async def respond(replica: Replica) -> None:
            answer = agents_pb2.RespondRequest(request=request, value_json=value_json)
            await replica.stub.Respond(answer, metadata=_metadata(context))

        with span("respond_to_run", parent=trace):
            try:
                await self._ask(context, address, respond)
            except FactoryChainError as error:
                raise _for_the_user(error) from error

    async def renew(self, context: UserExecutionContext, address: str, trace: str) -> None:
        """Give the run a later token (`layer.Agents`)."""

        async def renew(replica: Replica) -> None:
            # Its answer, empty, says that the run has the token.
            await replica.stub.Renew(agents_pb2.RenewRequest(), metadata=_metadata(context))

        with span("renew_run", parent=trace):
            await self._ask(context, address, renew)

    async def _ask(
        self,
        context: UserExecutionContext,
        address: str,
        ask: Callable[[Replica], Awaitable[T]],
    ) -> T:
        """Ask whoever may have the run: without an address, the replica that was to take it and whose
        answer was lost, or, if that is not known here, all of them.

        Raises:
            RunNotFound: none of them has it.
            ChainDegraded: one that may have it does not answer.
        """
        address = address or self._in_doubt.get(_attempt(context)) or ""
        candidates = (address,) if address else self._replicas.balance.addresses
        doubt = None if candidates else ChainDegraded(LAYER)
        for each in candidates:
            try:
                async with self._replicas.using(self._replicas.find(each)) as replica:
                    return await ask(replica)
            except RunNotFound:
                continue
            except ChainDegraded as error:
                doubt = error
        if doubt is not None:
            raise doubt
        raise RunNotFound

    async def _accepted(self, call: LifeCall, replica: Replica) -> Life:
        try:
            async with asyncio.timeout(self._answer_within_s):
                message = await read_life(call)
        except TimeoutError:
            raise ChainDegraded(LAYER) from None
        except BaseException:
            call.cancel()
            raise
        if message.WhichOneof("life") != "accepted":
            call.cancel()
            raise ChainDegraded(LAYER)
        replica.users += 1
        over = partial(self._replicas.balance.left, replica.address)
        return StreamedLife(call, message.accepted, replica.let_go, over)


def _was_answered(error: FactoryChainError) -> bool:
    cause = error.__cause__
    if not isinstance(cause, grpc.aio.AioRpcError):
        return False
    return any(key == DETAILS_KEY for key, _ in cause.trailing_metadata() or ())


def _for_the_user(error: FactoryChainError) -> FactoryChainError:
    """Agents that do not accept this engine's tokens are a fault of the chain, not of the caller."""
    if isinstance(error, TokenInvalid | TokenExpired):
        log.error("the agents refuse our tokens", reason=error.reason, message=error.message)
        return ChainDegraded(LAYER)
    return error


def _attempt(context: UserExecutionContext) -> str:
    return f"{context.principal.ukey}.{context.run}.{context.attempt}"


def _metadata(context: UserExecutionContext) -> tuple[tuple[str, str], ...]:
    return ((TXN_HEADER, context.token),)
