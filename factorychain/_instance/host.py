"""What an agent instance may ask of whoever hosts it.

A few calls with plain data, so that the same instance runs in the host's process, behind a pipe, or in
a test. A sandboxed host believes nothing: it checks what arrives before it passes it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from factorychain._instance.spec import SpanRecord


class RunHost(Protocol):
    """The instance's side of the border."""

    async def emit(self, kind: int, event: bytes) -> None:
        """Hand over a serialized event; return when there is room in the run's window.

        A caller that is cancelled while it waits has handed over its event all the same.

        Args:
            kind: number of the event's field in the `oneof` of `factorychain.types.v1.Event`.
            event: the event without `seq` and `run`.

        Raises:
            RunEnded: the run is over; nothing more can be said.
        """
        ...

    def beat(self) -> None:
        """Give a sign of life."""
        ...

    def created(self) -> None:
        """The agent was made, with everything that it needs; its `run` is called next."""
        ...

    def span(self, record: SpanRecord) -> None:
        """Export a finished span."""
        ...

    async def history(self, limit: int) -> Sequence[bytes]:
        """The thread's earlier runs, the oldest first, each a serialized `factorychain.types.v1.Run`."""
        ...
