"""What authors put into errors reaches users, and never more than an event can carry."""

from __future__ import annotations

import pytest

from factorychain import Agent, AgentError, RunContext, ToolError, tool
from factorychain.testing import run

_MOST_BYTES = 16 * 1024


class Wordy(Agent):
    """Fails with what it is told."""

    name = "wordy"

    @tool
    async def fail(self, text: str, reason: str) -> None:
        """Fails."""
        raise ToolError(text * 2_000_000, reason)

    async def run(self, ctx: RunContext, text: str) -> None:
        try:
            await self.fail(text=text, reason=text)
        except ToolError as error:
            raise AgentError(text * 2_000_000, reason=text) from error


@pytest.mark.parametrize("text", ["x", "é", "\ud800"])
def test_long_texts_and_odd_reasons_of_errors_are_cut_to_what_an_event_takes(
    text: str,
) -> None:
    result = run(Wordy, text)
    (completed,) = result.of_type("tool_completed")
    assert result.ending.type == "agent_failed"
    assert result.ending.data["reason"] == "AGENT_ERROR"
    error = completed.data["error"]
    assert isinstance(error, dict)
    assert error["reason"] == "TOOL_ERROR"
    for message in (error["message"], result.ending.data["message"]):
        assert 100 < len(str(message).encode()) < _MOST_BYTES
