"""What an agent instance may ask of whoever hosts it.

A few calls with plain data, so that the same instance runs in the host's process, behind a pipe, or in
a test. A sandboxed host believes nothing: it checks what arrives before it passes it on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from factorychain._instance.spec import SpanRecord
from factorychain.errors import InvalidField, StateLimit

VALUE_MAX_BYTES: Final = 1024 * 1024
"""Of a value that is kept in the thread: no host takes more, most take less."""
_VALUE_NAME: Final = re.compile(r"[a-z0-9._:-]{1,128}")


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

    async def ask(self, event: bytes, timeout_s: float) -> bytes:
        """Ask the user, and wait for the answer.

        Args:
            event: a serialized `input_requested`; the host says until when it may be answered.
            timeout_s: how long to wait; the run may have less time left for that.

        Returns:
            The answer, as JSON.

        Raises:
            InputTimeout: there was none in time.
            InvalidField: answers could not be checked against the schema, or the id was used before.
            EventRejected: the run asks more than one may.
            RunEnded: the run is over.
        """
        ...

    async def history(self, limit: int) -> Sequence[bytes]:
        """The thread's earlier runs, the oldest first, each a serialized `factorychain.types.v1.Run`."""
        ...

    async def load(self, name: str) -> tuple[bytes | None, int]:
        """A value that is kept in the thread, and the revision that replaces it must name.

        Returns:
            None and 0 if nothing is kept under this name.

        Raises:
            InvalidField: it is no name: 1 to 128 characters of `a-z`, `0-9` and `._:-`.
            RunEnded: the run is over.
        """
        ...

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        """Keep a value in the thread; None removes it.

        Args:
            name: as in `load`.
            value: what is kept from now on.
            revision: what it replaces; 0: nothing is kept there.

        Returns:
            The value's revision; 0 if it was removed.

        Raises:
            StateConflict: something else was stored meanwhile; nothing was changed.
            StateLimit: the value is too large, or the thread keeps too many.
            InvalidField: it is no name.
            RunEnded: the run is over.
        """
        ...


def check_value(name: str, value: bytes | None = None) -> None:
    """What every host refuses.

    Raises:
        InvalidField: it is no name of a value.
        StateLimit: the value is larger than any host takes.
    """
    if not _VALUE_NAME.fullmatch(name):
        raise InvalidField("name", "expected 1 to 128 characters of a-z, 0-9 and ._:-")
    if value is not None and len(value) > VALUE_MAX_BYTES:
        raise StateLimit(f"{name} has {len(value)} bytes; a value may have {VALUE_MAX_BYTES}")
