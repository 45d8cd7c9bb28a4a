"""What is read of a graph's schemas."""

from __future__ import annotations

import dataclasses
import operator
import typing
from typing import Annotated, Any

import pytest
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from factorychain.adapters.langgraph.shape import Shape, shape_of


class Plain(typing.TypedDict):
    question: str
    steps: Annotated[list[str], operator.add]


class Model(BaseModel):
    first: str | None = None
    prompt: Annotated[str, "what to do"] = ""
    count: int = 0


@dataclasses.dataclass
class Data:
    title: str
    pages: int = 1


class Question(TypedDict):
    messages: list[Any]
    language: str


class Talk(MessagesState):
    approved: bool
    language: str


def shape(state: Any, input_schema: Any = None) -> Shape:
    more = {"input_schema": input_schema} if input_schema else {}
    builder = StateGraph(state, **more).add_node("n", lambda state: {}).add_edge(START, "n")
    return shape_of(builder.compile())


@pytest.mark.parametrize(
    ("state", "fields", "text"),
    [
        (Plain, ("question", "steps"), "question"),
        (Model, ("first", "prompt", "count"), "prompt"),
        (Data, ("title", "pages"), "title"),
    ],
)
def test_fields_and_where_a_text_goes(state: Any, fields: tuple[str, ...], text: str) -> None:
    found = shape(state)
    assert (found.has_messages, found.fields, found.text_field) == (False, fields, text)


def test_the_state_behind_a_conversation_is_not_open_to_data() -> None:
    found = shape(Talk)
    assert (found.has_messages, found.fields) == (True, ())


def test_an_input_schema_of_its_own_opens_what_it_names() -> None:
    found = shape(Talk, Question)
    assert (found.has_messages, found.fields) == (True, ("language",))


def test_workflows_take_a_value_or_fields() -> None:
    @entrypoint()
    def plain(text: str) -> str:
        return text

    @entrypoint()
    def talk(given: Question) -> str:
        return ""

    assert shape_of(plain).is_plain
    found = shape_of(talk)
    assert (found.is_plain, found.has_messages, found.fields) == (False, True, ("language",))


def test_schemas_of_subgraphs_are_among_those_that_are_kept() -> None:
    inner = StateGraph(Plain).add_node("n", lambda state: {}).add_edge(START, "n").compile()
    outer = StateGraph(Data).add_node("inner", inner).add_edge(START, "inner").compile()
    assert {Plain, Data} <= set(shape_of(outer).schemas)
