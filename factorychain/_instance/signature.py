"""A tool's arguments: JSON Schema and validation, both from the annotations of its function.

Invariant: what the function receives has passed the validation that the schema describes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from factorychain._instance.active import AgentContext
from factorychain.input import Json

Function: TypeAlias = Callable[..., object]


class BadArguments(ValueError):
    """The arguments do not fit; the text says which and why."""


class Signature(Protocol):
    """What a tool takes, wherever that is known from."""

    @property
    def context_name(self) -> str:
        """The parameter that takes the `RunContext`; empty if there is none."""

    @property
    def schema(self) -> dict[str, Json]:
        """JSON Schema of the arguments."""

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The arguments by name; raises BadArguments."""

    def validated(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments as the function gets them; raises BadArguments."""

    def validated_json(self, text: str) -> dict[str, object]:
        """As `validated`, of JSON text; empty text means no arguments."""


@dataclass(frozen=True, slots=True)
class ToolSignature:
    """What a tool takes."""

    tool: str
    names: tuple[str, ...]
    """Parameters that a caller fills in, in order."""
    context_name: str
    """The parameter that takes the `RunContext`; empty if there is none."""
    model: type[BaseModel]
    """Fields are numbered and go by alias: a parameter may have a name that a model cannot."""
    schema: dict[str, Json]

    @classmethod
    def of(cls, function: Function, tool: str) -> ToolSignature:
        """Read a function's signature; the first parameter of a method is left out.

        Raises:
            TypeError: an annotation is missing or cannot be read, or a parameter has no name.
        """
        hints = _hints(function, tool)
        context_name = ""
        fields: dict[str, tuple[object, object]] = {}
        names: list[str] = []
        for parameter in _parameters(function, tool):
            annotation = hints.get(parameter.name)
            if _is_context(annotation):
                context_name = parameter.name
                continue
            if annotation is None:
                raise TypeError(f"tool {tool}: annotate its parameter {parameter.name!r}")
            needed = parameter.default is inspect.Parameter.empty
            default = ... if needed else parameter.default
            fields[f"p{len(names)}"] = (annotation, Field(default, alias=parameter.name))
            names.append(parameter.name)
        model = _model(tool, fields)
        return cls(tool, tuple(names), context_name, model, _schema(model, tool))

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The arguments by name.

        Raises:
            BadArguments: too many, or one given twice.
        """
        if len(args) > len(self.names):
            raise BadArguments(f"takes {len(self.names)} arguments, not {len(args)}")
        found = dict(zip(self.names, args, strict=False))
        twice = found.keys() & kwargs.keys()
        if twice:
            raise BadArguments(f"{min(twice)}: given twice")
        return {**found, **kwargs}

    def validated(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments as the function gets them; what is not given is left to its defaults.

        Raises:
            BadArguments: they do not fit.
        """
        try:
            filled = self.model.model_validate(arguments)
        except ValidationError as error:
            raise BadArguments(problems_of(error)) from error
        return self._given(filled)

    def validated_json(self, text: str) -> dict[str, object]:
        """As `validated`, of JSON text; empty text means no arguments."""
        try:
            filled = self.model.model_validate_json(text or "{}")
        except ValidationError as error:
            raise BadArguments(problems_of(error)) from error
        return self._given(filled)

    def _given(self, filled: BaseModel) -> dict[str, object]:
        return {
            name: getattr(filled, f"p{at}")
            for at, name in enumerate(self.names)
            if f"p{at}" in filled.model_fields_set
        }


def _hints(function: Function, tool: str) -> dict[str, object]:
    while isinstance(function, partial):
        function = function.func
    # An object that can be called has its annotations at its method.
    annotated: object = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise TypeError(f"tool {tool}: its annotations cannot be read: {error}") from error


def _parameters(function: Function, tool: str) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {tool}: {parameter} has no name of its own; name every argument")
    return parameters


def _is_context(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AgentContext)


def _model(tool: str, fields: dict[str, tuple[object, object]]) -> type[BaseModel]:
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    made = create_model(f"{tool}_arguments", __config__=config, **fields)  # type: ignore[call-overload]
    return cast("type[BaseModel]", made)


def _schema(model: type[BaseModel], tool: str) -> dict[str, Json]:
    try:
        schema: dict[str, Json] = model.model_json_schema(by_alias=True)
    except Exception as error:  # pydantic has no common base for what a type may lack
        raise TypeError(f"tool {tool}: an argument has no JSON Schema: {error}") from error
    schema.pop("title", None)
    properties = schema.get("properties")
    for each in properties.values() if isinstance(properties, dict) else ():
        if isinstance(each, dict):
            each.pop("title", None)
    return schema


def problems_of(error: ValidationError) -> str:
    """Such as `limit: Input should be a valid integer`, without the values, which may be anybody's."""
    problems = []
    for each in error.errors(include_input=False, include_context=False, include_url=False):
        where = ".".join(map(str, each["loc"]))
        problems.append(f"{where}: {each['msg']}" if where else each["msg"])
    return "; ".join(problems)
