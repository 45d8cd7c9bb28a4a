"""Tools as a model is offered them, and results as it is told."""

from __future__ import annotations

import pytest

from factorychain import Agent, AgentError, ImagePart, RunContext, TextPart, ToolError, tool
from factorychain.builtin.assistant.asking import ToolCall
from factorychain.builtin.assistant.offered import Offered, echoed, shown
from factorychain.testing import run


@tool(name="look.up in files")
async def look_up(word: str) -> str:
    """Looks up."""
    return f"found {word}"


@tool(name="look_up_in_files")
async def other(word: str) -> str:
    """Another of the same plain name."""
    return f"other {word}"


@tool(name="x" * 100)
async def long() -> None:
    """A long name."""


@tool
async def fails(how: str) -> None:
    """Fails."""
    if how == "told":
        raise ToolError("no such row")
    if how == "ends":
        raise AgentError("all is lost", reason="LOST")
    raise ValueError("a detail")


class Clerk(Agent):
    """Calls as a model would."""

    tools = (look_up, other, long, fails)

    async def run(self, ctx: RunContext, text: str) -> object:
        offered = Offered(ctx.tools)
        if text == "names":
            return [each["function"]["name"] for each in offered.schemas]  # type: ignore[index,call-overload]
        name, _, arguments = text.partition(" ")
        return (await offered.call(ToolCall("call1", name, arguments), "m1")).text


def test_names_are_such_as_vendors_take_and_each_is_once() -> None:
    names = run(Clerk, "names").output
    assert names == ["look_up_in_files", "look_up_in_files_2", "x" * 64, "fails"]


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ('look_up_in_files {"word": "a"}', "found a"),
        ('look_up_in_files_2 {"word": "a"}', "other a"),
        ('fails {"how": "told"}', "Error: no such row"),
        ('fails {"how": "raises"}', "Error: The tool failed"),
        ('look_up_in_files {"word"', "Error: look.up in files: Invalid JSON"),
        ('look_up_in_files {"words": 1}', "Error: look.up in files: word: Field required"),
        ("nothing {}", "Error: There is no tool 'nothing'"),
    ],
)
def test_whatever_becomes_of_a_call_is_an_answer_to_the_model(said: str, result: str) -> None:
    assert str(run(Clerk, said).output).startswith(result)


def test_what_a_tool_ends_the_run_with_ends_it() -> None:
    ending = run(Clerk, 'fails {"how": "ends"}').ending
    assert (ending.type, ending.data["reason"]) == ("agent_failed", "LOST")


def test_results_as_text_and_images() -> None:
    image = ImagePart(data=b"\x89PNG")
    assert shown("plain").text == "plain"
    assert shown({"a": [1, None]}).text == '{"a":[1,null]}'
    assert shown(image).images == [image]
    mixed = shown([TextPart("a chart"), image, image, 5])
    assert mixed.text == "a chart\n5\n[2 images, shown below]"
    assert mixed.images == [image, image]


@pytest.mark.parametrize(
    ("arguments", "shown_as"), [('{"a": 1}', '{"a": 1}'), ("", ""), ("[1]", "{}"), ('{"a"', "{}")]
)
def test_the_model_is_reminded_of_arguments_that_are_an_object(
    arguments: str, shown_as: str
) -> None:
    assert echoed(ToolCall("call1", "t", arguments)) == ("call1", "t", shown_as)
