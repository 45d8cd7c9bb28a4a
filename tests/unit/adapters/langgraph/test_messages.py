"""Pieces of models' messages, and what a run comes to."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from pydantic import BaseModel

from factorychain.adapters.langgraph.inputs import unanswered
from factorychain.adapters.langgraph.messages import pieces
from factorychain.adapters.langgraph.outputs import output_of


class Plan(BaseModel):
    steps: list[str]


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (AIMessageChunk(content="text"), [("text", "text")]),
        (AIMessageChunk(content=""), []),
        (
            AIMessageChunk(content="a", additional_kwargs={"reasoning_content": "because"}),
            [("reasoning", "because"), ("text", "a")],
        ),
        (
            AIMessage(
                [
                    {"type": "reasoning", "reasoning": "hm"},
                    {"type": "text", "text": "yes"},
                    {"type": "image", "url": "https://example.org/a.png"},
                ]
            ),
            [("reasoning", "hm"), ("text", "yes")],
        ),
        (
            AIMessageChunk(
                content=[{"type": "thinking", "thinking": "hm", "index": 0}],
                response_metadata={"model_provider": "anthropic"},
            ),
            [("reasoning", "hm")],
        ),
    ],
)
def test_text_and_reasoning_of_a_piece(message: AIMessage, found: list[tuple[str, str]]) -> None:
    assert list(pieces(message)) == found


def asks(*ids: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": each} for each in ids])


def answers(id: str, text: str = "found") -> ToolMessage:
    return ToolMessage(text, tool_call_id=id)


@pytest.mark.parametrize(
    ("state", "output"),
    [
        ({"messages": [HumanMessage("q", id="r1"), AIMessage("a")]}, "a"),
        ({"messages": [AIMessage("old"), HumanMessage("q", id="r1")]}, ""),
        ({"messages": [HumanMessage("q", id="r1"), asks("1"), answers("1")]}, "found"),
        ({"messages": [HumanMessage("q", id="r1"), AIMessage("a"), asks("1"), answers("1")]}, "a"),
        ({"messages": []}, ""),
        (
            {"messages": [AIMessage("a")], "structured_response": Plan(steps=["x"])},
            {"steps": ["x"]},
        ),
        ({"topic": "x", "count": 2}, {"topic": "x", "count": 2}),
        (AIMessage("alone"), "alone"),
        (Plan(steps=[]), {"steps": []}),
        ("text", "text"),
        (None, None),
    ],
)
def test_what_a_run_comes_to(state: object, output: object) -> None:
    assert output_of(state, "r1") == output


@pytest.mark.parametrize(
    ("messages", "open_calls"),
    [
        ([], []),
        ([HumanMessage("q")], []),
        ([asks("1", "2")], ["1", "2"]),
        ([asks("1", "2"), answers("2")], ["1"]),
        ([asks("1"), answers("1")], []),
        ([asks("1"), answers("1"), AIMessage("done")], []),
        ([asks("1"), HumanMessage("never mind")], []),
    ],
)
def test_calls_that_were_left_open_are_answered(messages: list[Any], open_calls: list[str]) -> None:
    found = [each for each in unanswered(messages) if isinstance(each, ToolMessage)]
    assert [each.tool_call_id for each in found] == open_calls
    assert all(each.status == "error" and each.name == "f" for each in found)
