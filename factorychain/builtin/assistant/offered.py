"""The agent's tools as a model is offered them, and what a call of one came to, as it is told.

Invariant: a model never stops a run by how it calls: a tool that does not exist, arguments that do not
fit and a tool that fails are answers to it. What an agent's own code ends the run with passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from factorychain._instance.tool_set import ToolSet
from factorychain._instance.values import dumps_anything
from factorychain.errors import FactoryChainError, ToolError
from factorychain.input import ImagePart, Json, TextPart
from factorychain.interrupt import Interrupt

if TYPE_CHECKING:
    from factorychain.builtin.assistant.asking import ToolCall

_NAME_MAX_CHARS: Final = 64
_OTHER: Final = re.compile(r"[^a-zA-Z0-9_-]")
"""What vendors take in no name."""


@dataclass(frozen=True, slots=True)
class Result:
    """For the model."""

    text: str
    images: list[ImagePart] = field(default_factory=list)


class Offered:
    """The tools of one run."""

    def __init__(self, tools: ToolSet) -> None:
        self._tools = tools
        self._names: dict[str, str] = {}
        self.schemas: list[Json] = [self._schema(each) for each in tools.schemas]
        """For the request."""

    async def call(self, call: ToolCall, message: str = "") -> Result:
        """Make it, as the agent's own call of a tool; `message` is the one that it was made in."""
        name = self._names.get(call.tool, call.tool)
        try:
            return shown(await self._tools.call(name, call.arguments, message=message))
        except ToolError as error:
            return Result(f"Error: {error.message}")
        except (FactoryChainError, Interrupt):
            raise
        except Exception:  # noqa: BLE001 - a tool's own code; the call's event and the log have it
            return Result("Error: The tool failed")

    def _schema(self, schema: Mapping[str, Json]) -> Json:
        function = {
            "name": self._name(str(schema["name"])),
            "description": schema["description"],
            "parameters": schema["input_schema"],
        }
        return {"type": "function", "function": function}

    def _name(self, tool: str) -> str:
        """A name that vendors take, and that no other tool has."""
        plain = _OTHER.sub("_", tool)[:_NAME_MAX_CHARS]
        name, number = plain, 1
        while name in self._names:
            number += 1
            name = f"{plain[: _NAME_MAX_CHARS - 4]}_{number}"
        self._names[name] = tool
        return name


def echoed(call: ToolCall) -> tuple[str, str, str]:
    """The call as the model is reminded of it: some vendors refuse arguments that are no JSON."""
    return call.id, call.tool or "unknown", call.arguments if _is_object(call.arguments) else "{}"


def shown(value: object) -> Result:
    """What a tool returned. Images go beside the text: alone, or anywhere in a list."""
    if isinstance(value, str):
        return Result(value)
    parts = value if isinstance(value, list | tuple) else [value]
    images = [each for each in parts if isinstance(each, ImagePart)]
    if not images:
        return Result(dumps_anything(value))
    texts = [_text(each) for each in parts if not isinstance(each, ImagePart)]
    count = f"[{len(images)} image{'s' if len(images) > 1 else ''}, shown below]"
    return Result("\n".join([*texts, count]), images)


def _text(part: object) -> str:
    if isinstance(part, TextPart):
        return part.text
    return part if isinstance(part, str) else dumps_anything(part)


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text or "{}"), dict)
    except orjson.JSONDecodeError:
        return False
