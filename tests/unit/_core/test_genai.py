"""The GenAI names, as the conventions have them."""

from __future__ import annotations

from factorychain._core import genai


def test_spans_are_named_by_operation_and_subject() -> None:
    name, attributes = genai.invoke_agent("researcher", thread="t1", run="r1", attempt=2)
    assert name == "invoke_agent researcher"
    assert attributes["gen_ai.operation.name"] == "invoke_agent"
    assert attributes["gen_ai.conversation.id"] == "t1"
    name, attributes = genai.execute_tool("search", call="c1", run="r1")
    assert name == "execute_tool search"
    assert attributes["gen_ai.tool.name"] == "search"
    assert genai.usage(3, 4) == {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4}
