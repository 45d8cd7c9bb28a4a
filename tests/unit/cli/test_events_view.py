"""How events look in a terminal."""

from __future__ import annotations

import pytest

from factorychain.cli.events_view import event_line, short
from factorychain.client import Event, Json


def event(kind: str, **data: Json) -> Event:
    return Event(seq=1, run="r1", type=kind, at="", data=data, thread="t1", epoch=1)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (event("agent_started", agent="echo"), "   started  echo  run r1  thread t1"),
        (
            event("agent_started", agent="echo", attempt=2),
            "     again  echo  run r1  thread t1  attempt 2",
        ),
        (event("agent_thinking", text="hm [bold]"), "  thinking  hm [bold]"),
        (
            event("tool_executing", tool="look", arguments={"for": "it"}),
            '      tool  look {"for": "it"}',
        ),
        (
            event("tool_completed", tool="look", ok=True, result=[1, 2], duration_ms=3),
            "      tool  look → [1, 2]  (3 ms)",
        ),
        (
            event("tool_completed", tool="look", ok=False, error={"message": "no"}, duration_ms=3),
            "      tool  look → failed: no  (3 ms)",
        ),
        (event("agent_completed", output="x", duration_ms=7), " completed  in 7 ms"),
        (
            event("agent_failed", reason="AGENT_FAILED", message="The agent failed"),
            "    failed  AGENT_FAILED The agent failed",
        ),
        (event("agent_cancelled", reason="USER"), " cancelled  USER"),
        (event("custom", name="n", data=1), '    custom  {"name": "n", "data": 1}'),
        (event("of_a_later_version", a=1), 'of_a_later_version  {"a": 1}'),
    ],
    ids=lambda value: value.type if isinstance(value, Event) else "",
)
def test_an_event_is_one_line(said: Event, line: str) -> None:
    found = event_line(said)
    assert found is not None
    assert found.plain == line


def test_what_a_sub_agent_says_names_it() -> None:
    said = Event("t1", 1, 1, "r1", "agent_thinking", "", {"text": "hm"}, path=("planner", "writer"))
    found = event_line(said)
    assert found is not None
    assert found.plain == "  thinking  hm  in planner › writer"


@pytest.mark.parametrize("kind", ["message_delta", "thinking_delta"])
def test_pieces_of_a_text_are_no_lines(kind: str) -> None:
    assert event_line(event(kind, message="m", text="piece")) is None


def test_a_long_or_broken_text_becomes_one_short_line() -> None:
    assert short("a\n\n  b\tc") == "a b c"
    cut = short({"text": "x" * 500}, 40)
    assert len(cut) == 40
    assert cut.endswith("…")
    assert short("ä" * 40, 40) == "ä" * 40
