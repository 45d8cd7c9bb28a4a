"""What an agent's class says about it, read once and checked before anything runs.

Invariant: a definition that exists can be listed and started: its name, its `run`, its input and every
tool have been understood.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import get_type_hints

import orjson
from pydantic import BaseModel, ValidationError

from factorychain._instance.declared_needs import needs_of
from factorychain._instance.needs import Needs
from factorychain._instance.signature import problems_of
from factorychain._instance.tool_set import sources_of, tools_of
from factorychain._instance.tool_source import ToolSource
from factorychain.agent import Agent
from factorychain.errors import InvalidField
from factorychain.input import Input, Json, parse_input
from factorychain.tools import Tool

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class BadAgent(TypeError):
    """The class cannot be an agent; the text says what to mend."""


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """One agent as its author wrote it."""

    cls: type[Agent]
    name: str
    description: str
    is_async: bool
    takes: type
    """`str`, `Input`, a pydantic model, or `NoneType` for a `run` without an input."""
    input_schema: dict[str, Json]
    tools: dict[str, Tool]
    sources: tuple[ToolSource, ...]
    """What brings more tools when a run has begun."""
    needs: Needs
    """What it asks for, of where its runs are and what they may do."""

    @property
    def repeat_safe(self) -> bool:
        return self.cls.repeat_safe

    @property
    def lifetime_s(self) -> float:
        return self.needs.lifetime_s

    def argument(self, input_json: str) -> object:
        """What `run` gets for an input.

        Raises:
            InvalidField: the input is malformed, or is not what the agent takes.
        """
        found = parse_input(input_json)
        if self.takes is str:
            return found.text
        if issubclass(self.takes, BaseModel):
            return _validated(self.takes, found)
        return found


def agent_name(cls: type[Agent]) -> str:
    """What an agent is called."""
    return cls.name or _WORD.sub("-", cls.__name__).lower()


def define(cls: type[Agent]) -> AgentDefinition:
    """Read an agent's class.

    Raises:
        BadAgent: it cannot be one.
    """
    where = f"{cls.__module__}.{cls.__qualname__}"
    name = agent_name(cls)
    if not _NAME.match(name):
        raise BadAgent(f"{where}: name {name!r} must be a-z 0-9 . _ - and at most 64 characters")
    run = getattr(cls, "run", None)
    if not inspect.isfunction(run) or inspect.isgeneratorfunction(run):
        raise BadAgent(f"{where} needs a method `async def run(self, ctx: RunContext, text: str)`")
    if inspect.isasyncgenfunction(run):
        raise BadAgent(f"{where}.run must not yield: stream with ctx.message(), return the output")
    takes = _takes(run, where)
    try:
        needs = needs_of(cls)
        tools = tools_of(cls)
        for each in tools.values():
            _ = each.signature
        sources = sources_of(cls)
        for source in sources:
            source.check(needs)
    except TypeError as error:
        raise BadAgent(f"{where}: {error}") from error
    return AgentDefinition(
        cls=cls,
        name=name,
        description=inspect.cleandoc(cls.__doc__ or "") if cls.__doc__ != Agent.__doc__ else "",
        is_async=inspect.iscoroutinefunction(run),
        takes=takes,
        input_schema=_input_schema(takes),
        tools=tools,
        sources=tuple(sources),
        needs=needs,
    )


def _takes(run: object, where: str) -> type:
    assert inspect.isfunction(run)
    parameters = list(inspect.signature(run).parameters.values())[1:]
    needed = [each for each in parameters if each.default is each.empty]
    named = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in needed)
    if not 1 <= len(needed) <= 2 or not named:
        raise BadAgent(f"{where}.run takes (self, ctx) or (self, ctx, input), nothing else")
    if len(needed) == 1:
        return type(None)
    try:
        hint: object = get_type_hints(run).get(needed[1].name, str)
    except (NameError, TypeError, AttributeError) as error:
        raise BadAgent(f"{where}.run: its annotations cannot be read: {error}") from error
    if hint is str or hint is Input or (isinstance(hint, type) and issubclass(hint, BaseModel)):
        assert isinstance(hint, type)
        return hint
    raise BadAgent(
        f"{where}.run: its input is annotated {hint}; use str, Input or a pydantic model"
    )


def _validated(model: type[BaseModel], found: Input) -> BaseModel:
    """The input's `data`, or its text if that is JSON, as the agent's model."""
    value: Json = found.data
    if not found.has_data:
        try:
            value = orjson.loads(found.text)
        except orjson.JSONDecodeError as error:
            raise InvalidField("input.data", "this agent takes an object here") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidField("input.data", problems_of(error)) from error


def _input_schema(takes: type) -> dict[str, Json]:
    """JSON Schema of the whole input, of which a pydantic model describes `data`."""
    text: dict[str, Json] = {"type": "string"}
    if issubclass(takes, BaseModel):
        schema: dict[str, Json] = takes.model_json_schema()
        definitions = schema.pop("$defs", None)
        whole: dict[str, Json] = {
            "type": "object",
            "properties": {"data": schema, "text": text},
            "required": ["data"],
        }
        return whole | ({"$defs": definitions} if definitions else {})
    if takes is type(None):
        return {"type": "object"}
    properties: dict[str, Json] = {"text": text, "content": {"type": "array"}, "data": {}}
    return {
        "type": "object",
        "properties": properties,
        "anyOf": [{"required": ["text"]}, {"required": ["content"]}],
    }
