"""What a run has of the model gateway, as the rest of the service sees it.

Invariant: a run's key is worth nothing from the moment at which its code is over or told to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from factorychain._core.execution_context import UserExecutionContext
from factorychain.usage import Usage


class RunModels(Protocol):
    """One run's."""

    @property
    def url(self) -> str:
        """Where the gateway is; empty if there is none."""
        ...

    @property
    def key(self) -> str: ...

    @property
    def credentials(self) -> Sequence[tuple[str, str]]:
        """What `ctx.credential` knows: names, and paths behind `url`."""
        ...

    def renew(self, ctx: UserExecutionContext) -> None:
        """The run lives longer than its token said."""
        ...

    def cancel(self) -> None:
        """The run is told to stop: its requests are given up, and there are no more."""
        ...

    async def close(self) -> Usage:
        """The run's code is over; what it has used in all. May be called twice."""
        ...


class Gateway(Protocol):
    """Gives runs what they have of it."""

    def open(self, ctx: UserExecutionContext, trace: str) -> RunModels: ...


class NoGateway:
    """Where the operator has configured none; also what its runs have of it."""

    url = ""
    key = ""
    credentials = ()

    def open(self, ctx: UserExecutionContext, trace: str) -> RunModels:
        del ctx, trace
        return self

    def renew(self, ctx: UserExecutionContext) -> None:
        """There is nothing to renew."""

    def cancel(self) -> None:
        """There is nothing to cancel."""

    async def close(self) -> Usage:
        return Usage()
