"""Tools that come with a run, and the end of what brings them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from factorychain import AgentError
from factorychain._instance.needs import Needs
from factorychain._instance.tool_source import OpenedSource, ToolSource, ToolSources
from factorychain.tools import Tool

RUN: Any = cast("Any", None)


class Source(ToolSource):
    """Brings a tool; fails or hangs where it is told to."""

    def __init__(self, name: str, *tools: str, fails: bool = False, hangs: str = "") -> None:
        self.name = name
        self.tools = tools
        self.fails = fails
        self.hangs = hangs
        self.closed = 0

    def check(self, needs: Needs) -> None: ...

    def of(self, run: object) -> OpenedSource:
        return Opened(self)


class Opened(OpenedSource):
    def __init__(self, source: Source) -> None:
        self.source = source

    async def open(self) -> Sequence[Tool]:
        if self.source.hangs == "open":
            await asyncio.Event().wait()
        if self.source.fails:
            raise AgentError("not there", reason="GONE")
        return [Tool(lambda: None, each) for each in self.source.tools]

    async def close(self) -> None:
        try:
            if self.source.hangs == "close":
                await asyncio.Event().wait()
        finally:
            self.source.closed += 1
        if self.source.fails:
            raise ValueError("a detail")


async def test_all_are_opened_and_closed_once() -> None:
    sources = ToolSources(RUN)
    given = [Source("one", "a", "b"), Source("two", "c")]
    await sources.open(given, ())
    assert list(sources.tools) == ["a", "b", "c"]
    await sources.close()
    await sources.close()
    assert [each.closed for each in given] == [1, 1]


async def test_one_that_fails_is_raised_and_all_are_closed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = ToolSources(RUN)
    given = [Source("one", hangs="open"), Source("two", fails=True)]
    with pytest.raises(AgentError, match="not there"):
        await sources.open(given, ())
    await sources.close()
    assert [each.closed for each in given] == [1, 1]
    assert "a detail" in capsys.readouterr().err


@pytest.mark.parametrize("taken", [{"a"}, set()])
async def test_a_name_that_is_taken_is_refused(taken: set[str]) -> None:
    sources = ToolSources(RUN)
    with pytest.raises(TypeError, match="one has a tool 'a', which the agent has already"):
        await sources.open([Source("one", "a"), Source("one", "a")], taken)


async def test_a_cancel_hastens_the_closing_and_is_raised_when_it_is_done() -> None:
    sources = ToolSources(RUN)
    given = [Source("one", hangs="close"), Source("two")]
    await sources.open(given, ())
    closing = asyncio.create_task(sources.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert [each.closed for each in given] == [1, 1]
