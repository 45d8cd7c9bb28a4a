"""The agents layer as the engine sees it: what can be asked of it, and what becomes of a run there."""

from __future__ import annotations

from typing import Protocol

from factorychain._core.execution_context import UserExecutionContext
from factorychain.agents.v1.agents_pb2 import ExecuteRequest, RunAccepted
from factorychain.errors import FactoryChainError
from factorychain_engine.lifeline import Sign


class NotAccepted(Exception):
    """Agents answered and did not take the run."""

    def __init__(self, refusal: FactoryChainError) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Life(Protocol):
    """The life of a run as its agents replica reports it (a stream of Execute or Attach)."""

    @property
    def accepted(self) -> RunAccepted: ...

    async def next_sign(self) -> Sign | None:
        """How the run is; None: it has finished.

        Raises:
            ChainDegraded: the stream broke; that says nothing about the run.
        """

    def close(self) -> None: ...


class Agents(Protocol):
    """The agents layer."""

    async def ready(self) -> None:
        """Return when there is some replica to ask to take a run.

        Raises:
            Capacity: all of them are full.
            ChainDegraded: none is there.
        """

    async def execute(
        self, context: UserExecutionContext, request: ExecuteRequest, trace: str
    ) -> Life:
        """Have the run executed; returns when it was accepted.

        Raises:
            NotAccepted: agents answered and did not take it.
            ChainDegraded: nobody knows whether it was taken.
        """

    async def attach(self, context: UserExecutionContext, address: str, trace: str) -> Life:
        """Follow a run that was accepted at `address`.

        Raises:
            RunNotFound: it is not there.
            ChainDegraded: the replica does not answer.
        """

    async def cancel(
        self, context: UserExecutionContext, address: str, reason: str, trace: str
    ) -> None:
        """Tell the agent to stop.

        Raises:
            RunNotFound: it is not there.
            ChainDegraded: the replica does not answer.
        """

    async def respond(
        self,
        context: UserExecutionContext,
        address: str,
        request: str,
        value_json: str,
        trace: str,
    ) -> None:
        """Hand over the user's answer.

        Raises:
            RunNotFound: the run is not there.
            InvalidField: the answer does not fit.
            RequestNotFound, RequestAnswered, RequestClosed: nobody waits for it.
            ChainDegraded: the replica does not answer.
        """

    async def renew(self, context: UserExecutionContext, address: str, trace: str) -> None:
        """Give the run the context's token in the place of its own.

        Raises:
            RunNotFound: the run is not there.
            ChainDegraded: the replica does not answer.
        """
