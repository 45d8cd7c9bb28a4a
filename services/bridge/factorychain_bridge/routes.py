"""Which runs write here, and to which thread each belongs.

Invariants: there is one route for a run and scope, that of its latest opening, never of an attempt
before it; an answer is given only to the principal whose run it is.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.errors import AttemptSuperseded


class Writer(Protocol):
    """What stands behind a route."""

    @property
    def context(self) -> UserExecutionContext: ...


W = TypeVar("W", bound=Writer)


class Routes(Generic[W]):
    """The open runs of this replica."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, Scope], W] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def open(self, writer: W) -> W | None:
        """Enter a route; returns the writer that it replaces, which must not go on.

        Raises:
            AttemptSuperseded: A later attempt of the run writes here.
        """
        key = _key(writer.context)
        replaced = self._routes.get(key)
        if replaced is not None and replaced.context.attempt > writer.context.attempt:
            raise AttemptSuperseded
        self._routes[key] = writer
        return replaced

    def close(self, writer: W) -> bool:
        """Leave a route; False if another writer has taken it."""
        key = _key(writer.context)
        if self._routes.get(key) is not writer:
            return False
        del self._routes[key]
        return True

    def thread_of(self, principal: Principal, run: str) -> str | None:
        """The thread of one of the principal's runs; None: not here, or not theirs."""
        for scope in Scope:
            writer = self._routes.get((run, scope))
            if writer is not None and writer.context.principal == principal:
                return writer.context.thread
        return None

    def all(self) -> list[W]:
        return list(self._routes.values())


def _key(context: UserExecutionContext) -> tuple[str, Scope]:
    return context.run, context.scope
