"""What a tool of an MCP server returns, as a tool's own result."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import mcp_types

from factorychain.errors import ToolError
from factorychain.input import FilePart, ImagePart, TextPart

_NOTHING: Final = "The tool failed"


def value_of(result: mcp_types.CallToolResult) -> object:
    """Structured content as it is; one text as text; else the parts in order.

    Raises:
        ToolError: the result is an error; its text is the server's.
    """
    parts = [_part(each) for each in result.content]
    texts = [each.text for each in parts if isinstance(each, TextPart)]
    if result.is_error:
        raise ToolError("\n".join(texts) or _NOTHING)
    images = [each for each in parts if not isinstance(each, TextPart)]
    if result.structured_content is not None and not images:
        return _unwrapped(result.structured_content)
    if not images:
        return "\n".join(texts) if texts else None
    return parts


def _unwrapped(content: object) -> object:
    """Servers of Python put what is no object into one with the single field `result`."""
    if isinstance(content, dict) and content.keys() == {"result"}:
        return content["result"]
    return content


def _part(block: mcp_types.ContentBlock) -> TextPart | ImagePart | FilePart:
    if isinstance(block, mcp_types.TextContent):
        return TextPart(block.text)
    if isinstance(block, mcp_types.ImageContent):
        return ImagePart(data=_bytes(block.data), media_type=block.mime_type)
    if isinstance(block, mcp_types.AudioContent):
        return FilePart(data=_bytes(block.data), media_type=block.mime_type)
    if isinstance(block, mcp_types.ResourceLink):
        return TextPart(f"{block.title or block.name}: {block.uri}")
    return _resource(block.resource)


def _resource(
    resource: mcp_types.TextResourceContents | mcp_types.BlobResourceContents,
) -> TextPart | ImagePart | FilePart:
    kind = resource.mime_type or ""
    if isinstance(resource, mcp_types.TextResourceContents):
        return TextPart(resource.text)
    data = _bytes(resource.blob)
    return (
        ImagePart(data=data, media_type=kind)
        if kind.startswith("image/")
        else FilePart(data=data, media_type=kind)
    )


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ToolError("The tool returned data that is no base64") from error
