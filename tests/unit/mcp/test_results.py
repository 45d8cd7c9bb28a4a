"""What an MCP server returns, as a tool's result."""

from __future__ import annotations

from typing import Any

import mcp_types
import pytest

from factorychain import FilePart, ImagePart, TextPart, ToolError
from factorychain._mcp.results import value_of

TEXT = {"type": "text", "text": "hello"}
IMAGE = {"type": "image", "data": "iVBORw==", "mimeType": "image/png"}


def value(*content: dict[str, Any], **more: Any) -> object:
    return value_of(mcp_types.CallToolResult.model_validate({"content": list(content), **more}))


def test_texts_are_one_text() -> None:
    assert value(TEXT) == "hello"
    assert value(TEXT, {"type": "text", "text": "there"}) == "hello\nthere"
    assert value() is None


def test_structured_content_is_the_result() -> None:
    assert value(TEXT, structuredContent={"a": [1]}) == {"a": [1]}
    assert value(TEXT, structuredContent={"result": [1, 2]}) == [1, 2]
    assert value(TEXT, structuredContent={"result": 1, "more": 2}) == {"result": 1, "more": 2}


def test_what_is_no_text_makes_a_list_of_parts() -> None:
    audio = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}
    assert value(TEXT, IMAGE, audio, structuredContent={"a": 1}) == [
        TextPart("hello"),
        ImagePart(data=b"\x89PNG", media_type="image/png"),
        FilePart(data=b"\0\0\0", media_type="audio/wav"),
    ]


def test_resources_are_their_content_and_links_their_address() -> None:
    def embedded(**resource: str) -> dict[str, Any]:
        return {"type": "resource", "resource": {"uri": "file:///a", **resource}}

    link = {"type": "resource_link", "uri": "file:///b", "name": "b", "title": "The b"}
    assert value(embedded(text="inside"), link) == "inside\nThe b: file:///b"
    assert value(embedded(blob="iVBORw==", mimeType="image/png")) == [
        ImagePart(data=b"\x89PNG", media_type="image/png")
    ]
    assert value(embedded(blob="iVBORw==")) == [FilePart(data=b"\x89PNG")]


def test_an_error_is_a_tool_error_with_the_server_s_text() -> None:
    with pytest.raises(ToolError, match=r"^hello$"):
        value(TEXT, isError=True)
    with pytest.raises(ToolError, match=r"^The tool failed$"):
        value(isError=True)


def test_data_that_is_no_base64_is_a_tool_error() -> None:
    with pytest.raises(ToolError, match="no base64"):
        value({**IMAGE, "data": "ä"})
