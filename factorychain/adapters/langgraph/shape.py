"""What a graph takes and keeps, read once from its schemas.

Invariant: a user's `data` reaches only fields that the author declared as input. A graph that takes
messages declares them by an input schema of its own; without one, its other fields are its state.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast, get_args, get_origin, get_type_hints

from langgraph.channels.base import BaseChannel
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

Graph: TypeAlias = Pregel[Any, Any, Any, Any]
"""A compiled graph, whatever its state; the type's own bounds leave no other word for that."""

MESSAGES: Final = "messages"
_START: Final = "__start__"
_VALUES: Final = (str, dict, list)
_TEXTS: Final = ("input", "question", "query", "text", "prompt", "topic", "task")
"""Where a text goes if several fields of a graph's input take one."""


class _Builder(Protocol):
    """What is read of a `StateGraph`."""

    input_schema: type
    state_schema: type
    schemas: Mapping[type, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Shape:
    """A graph's input and state."""

    has_messages: bool
    """It takes a conversation, under `messages`."""
    fields: tuple[str, ...]
    """Fields that a user's `data` may fill; none for a graph that takes a plain value."""
    text_field: str
    """The field that a text goes to; empty if none is meant for it."""
    is_plain: bool
    """It takes a value as it is, no fields."""
    schemas: tuple[type, ...] = field(default=())
    """Of everything that it keeps, its subgraphs' too."""


def shape_of(graph: Graph) -> Shape:
    """Read a compiled graph."""
    schemas = _schemas(graph)
    if isinstance(graph, CompiledStateGraph):
        builder = cast("_Builder", graph.builder)
        names = list(builder.schemas[builder.input_schema])
        explicit = builder.input_schema is not builder.state_schema
        return _of_fields(names, _hints(builder.input_schema), explicit, schemas)
    if isinstance(graph.input_channels, str):
        return _of_value(_value_type(graph), schemas)
    hints = {each: _channel_type(graph, each) for each in graph.input_channels}
    return _of_fields(list(hints), hints, True, schemas)


def _of_fields(
    names: list[str], hints: Mapping[str, object], explicit: bool, schemas: tuple[type, ...]
) -> Shape:
    has_messages = MESSAGES in names
    open_to_data = explicit or not has_messages
    others = tuple(each for each in names if each != MESSAGES) if open_to_data else ()
    texts = [each for each in others if _takes_text(hints.get(each))]
    text_field = "" if has_messages else _text_field(texts)
    return Shape(has_messages, others, text_field, False, schemas)


def _of_value(taken: object, schemas: tuple[type, ...]) -> Shape:
    """A workflow of the functional API: one argument."""
    hints = _hints(taken) if isinstance(taken, type) else {}
    if not hints:
        return Shape(False, (), "", True, schemas)
    return _of_fields(list(hints), hints, True, schemas)


def _text_field(texts: list[str]) -> str:
    known = [each for each in _TEXTS if each in texts]
    return texts[0] if len(texts) == 1 else next(iter(known), "")


def _takes_text(hint: object) -> bool:
    if get_origin(hint) in (typing.Annotated, typing.Required, typing.NotRequired):
        return _takes_text(get_args(hint)[0])
    if get_origin(hint) in (typing.Union, types.UnionType):
        return str in get_args(hint)
    return hint is str


def _hints(schema: object) -> dict[str, object]:
    return _hints_of(schema) if isinstance(schema, type) and schema not in _VALUES else {}


def _hints_of(annotated: object) -> dict[str, object]:
    try:
        return get_type_hints(annotated)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can read
        return dict.fromkeys(getattr(annotated, "__annotations__", {}))


def _value_type(graph: Graph) -> object:
    found = _channel_type(graph, _START)
    return _written_type(graph, found) if isinstance(found, str) else found


def _written_type(graph: Graph, annotation: str) -> object:
    """What an annotation means that is kept as text (`from __future__ import annotations`)."""
    for node in graph.nodes.values():
        for name in ("func", "afunc"):
            function = getattr(node.bound, name, None)
            if annotation in getattr(function, "__annotations__", {}).values():
                return next(iter(_hints_of(function).values()), None)
    return None


def _channel_type(graph: Graph, name: str) -> object:
    channel = graph.channels.get(name)
    return channel.UpdateType if isinstance(channel, BaseChannel) else None


def _schemas(graph: Graph) -> tuple[type, ...]:
    found: dict[type, None] = {}
    for each in (graph, *(sub for _, sub in graph.get_subgraphs(recurse=True))):
        if isinstance(each, CompiledStateGraph):
            found |= dict.fromkeys(cast("_Builder", each.builder).schemas)
        elif isinstance(each, Pregel):
            types_ = (_channel_type(each, name) for name in each.channels)
            found |= dict.fromkeys(one for one in types_ if isinstance(one, type))
    return tuple(found)
