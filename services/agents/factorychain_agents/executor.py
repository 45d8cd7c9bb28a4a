"""Where an agent's code runs: the border between the service and a run's instance.

What crosses it is data: a `RunSpec` in; serialized events, signs of life and spans to the `RunHost`; an
`Outcome` out. So an executor may run the instance as a task here or in a process of its own, and nothing
else of the service knows the difference.
"""

from __future__ import annotations

from typing import Protocol

from factorychain._instance.host import RunHost
from factorychain._instance.spec import Outcome, RunSpec


class RunHandle(Protocol):
    """A run that an executor has started."""

    def cancel(self) -> None:
        """Tell the agent's code to stop (`asyncio.CancelledError`). May be called twice."""
        ...

    def reject(self, reason: str, message: str) -> None:
        """Tell the agent that an event of it was rejected on its way."""
        ...

    async def wait(self) -> Outcome:
        """What the agent's code came to. May be cancelled and called again; never raises otherwise."""
        ...

    def abandon(self) -> None:
        """Let go of a run that does not stop: from now on nothing of it reaches the host."""
        ...


class Executor(Protocol):
    """A component that runs instances."""

    @property
    def name(self) -> str: ...

    @property
    def healthy(self) -> bool: ...

    @property
    def running(self) -> int:
        """How many instances there are, abandoned ones included."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def start_run(self, spec: RunSpec, host: RunHost) -> RunHandle:
        """Start the agent that the spec names; it makes its instance while this returns.

        Raises:
            Capacity: no more can be started here now.
        """
        ...
