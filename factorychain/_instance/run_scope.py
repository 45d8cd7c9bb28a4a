"""What is made for one run, and its end.

Invariant: everything that was made for a run is closed, the last first, on every kind of end: one that
fails or is cancelled while it closes keeps none of the others from it.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from types import TracebackType
from typing import Self

from dishka import AsyncContainer
from dishka.exceptions import ExitError

from factorychain.agent import Agent


class RunScope:
    """The dependencies of one run."""

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close(error)

    async def agent(self, cls: type[Agent]) -> Agent:
        """The run's agent, with everything that it needs."""
        found: object = await self._container.get(cls)
        assert isinstance(found, Agent), "its provider calls the class"
        return found

    async def close(self, error: BaseException | None = None) -> None:
        """Close what was made; the second time there is nothing left. Waits for who is at it already.

        A cancel ends the finaliser that it meets, and is raised when the others are done.

        Args:
            error: what the run ended with; a generator gets it as the value of its `yield`.

        Raises:
            Exception: what a finaliser raised, in a group if several did.
        """
        told: BaseException | None = None
        failures: list[Exception] = []
        async with self._one_at_a_time:
            while True:
                try:
                    await self._container.close(error)
                    break
                except ExitError as failed:
                    failures += failed.exceptions
                    break
                except (asyncio.CancelledError, SystemExit, KeyboardInterrupt) as ended:
                    told = ended  # the finaliser that it met is done with; on to the next
        if told is not None:
            _print(failures)
            raise told
        if error is not None:  # what the run ended with says more
            _print(failures)
        elif failures:
            raise failures[0] if len(failures) == 1 else ExceptionGroup("finalisers", failures)


def _print(failures: list[Exception]) -> None:
    for each in failures:
        sys.stderr.write("".join(traceback.format_exception(each)))
