"""Tools that are there only once a run has begun: who brings them, and the end of what that takes.

Invariant: what was opened for a run is closed at its end, whichever that is, and is never another run's.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factorychain._instance.active import ActiveRun
    from factorychain._instance.needs import Needs
    from factorychain.tools import Tool


class OpenedSource(ABC):
    """What one source is for one run."""

    @abstractmethod
    async def open(self) -> Sequence[Tool]:
        """The tools.

        Raises:
            AgentError: they are not to be had; its text is for the user, what is behind it for the log.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything, also after an `open` that failed or was cancelled; a cancel hastens it."""


class ToolSource(ABC):
    """What an agent's `tools` may list beside functions."""

    name: str

    @abstractmethod
    def check(self, needs: Needs) -> None:
        """Whether runs of an agent with these needs can use it.

        Raises:
            TypeError: they cannot; the text names the attribute of the class that would allow it.
        """

    @abstractmethod
    def of(self, run: ActiveRun) -> OpenedSource:
        """What it is for one run; nothing is opened yet."""


class ToolSources:
    """Everything that is opened for one run."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._opened: list[OpenedSource] = []
        self.tools: dict[str, Tool] = {}
        """By name, of all of them."""

    async def open(self, sources: Iterable[ToolSource], taken: Collection[str]) -> None:
        """Open them at once, and add their tools.

        Args:
            sources: what to open.
            taken: names that other tools of the agent have.

        Raises:
            AgentError: one cannot be opened.
            TypeError: a name is taken.
        """
        new = [(each, each.of(self._run)) for each in sources]
        self._opened += [opened for _, opened in new]
        opening = [asyncio.ensure_future(opened.open()) for _, opened in new]
        try:
            found = await asyncio.gather(*opening)
        finally:
            for each in opening:
                each.cancel()
        for (source, _), tools in zip(new, found, strict=True):
            for tool in tools:
                if tool.name in taken or tool.name in self.tools:
                    raise TypeError(
                        f"{source.name} has a tool {tool.name!r}, which the agent has already: "
                        "give the source a `prefix`, or list the wanted ones in its `only`"
                    )
                self.tools[tool.name] = tool

    async def close(self) -> None:
        """Close all of them; what goes wrong is in the log. A cancel hastens it, and is raised at the end."""
        opened, self._opened = self._opened, []
        if not opened:
            return
        closing = asyncio.gather(*(each.close() for each in opened), return_exceptions=True)
        try:
            results = await asyncio.shield(closing)
        except asyncio.CancelledError:
            closing.cancel()
            await asyncio.wait([closing])
            raise
        for each in results:
            if isinstance(each, BaseException):
                sys.stderr.write("".join(traceback.format_exception(each)))
