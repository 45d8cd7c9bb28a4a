"""What a socket is given: who verifies, where events come from, what is counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain_bridge.edge.feeds import Hub
from factorychain_bridge.edge.limits import ConnectionCounts
from factorychain_bridge.edge.operations import Operations


class VerifiedUser(Protocol):
    """Whose a token is, and until when."""

    @property
    def principal(self) -> Principal: ...

    @property
    def expires_at_s(self) -> float: ...


class Verifier(Protocol):
    """Verifies tokens of users."""

    async def verify(self, token: str) -> VerifiedUser:
        """Whose the token is.

        Raises:
            FactoryChainError: It is not valid, or that cannot be found out now.
        """


class Connection(Protocol):
    """A user's live traffic on this replica."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sockets of an edge have in common."""

    verifier: Verifier
    hub: Hub
    connect: Callable[[Principal], Awaitable[Connection]]
    operations: Operations
    counts: ConnectionCounts
    tasks: TaskSet
