"""What is kept of a thread, and how it comes together with the thread's history."""

from __future__ import annotations

import pytest
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.tools import DeferredToolRequests

from factorychain import Input, PastRun
from factorychain import TextPart as SaidText
from factorychain.adapters.pydantic_ai.conversation import Conversation, NotKept


def past(run: str, said: str = "hello", output: str | None = "good day") -> PastRun:
    given = Input(said, (SaidText(said),))
    return PastRun(run, "helper", "completed" if output else "failed", given, output)


def said(text: str, answer: str = "") -> list[ModelMessage]:
    asked: list[ModelMessage] = [ModelRequest([UserPromptPart(text)])]
    return [*asked, ModelResponse([TextPart(answer)])] if answer else asked


def called(text: str, id: str = "1") -> list[ModelMessage]:
    call = ToolCallPart("look", {"q": text}, tool_call_id=id)
    return [*said(text), ModelResponse([call])]


def returned(id: str = "1") -> list[ModelMessage]:
    back = ToolReturnPart("look", "found", tool_call_id=id)
    return [ModelRequest([back]), ModelResponse([TextPart("done")])]


def texts(messages: list[ModelMessage]) -> list[str]:
    """What was said, one string for each part that is text."""
    parts = [part for message in messages for part in message.parts]
    plain = [part for part in parts if isinstance(part, TextPart | UserPromptPart)]
    return [part.content if isinstance(part.content, str) else "?" for part in plain]


def stored(conversation: Conversation) -> Conversation:
    """As the next process has it."""
    return Conversation.load(conversation.dump())


def test_what_was_said_in_a_run_comes_back_with_its_tool_calls() -> None:
    kept = Conversation()
    kept.add("r1", [*called("a"), *returned()])
    found = stored(kept).messages([past("r1")])
    assert [type(part).__name__ for each in found for part in each.parts] == [
        "UserPromptPart", "ToolCallPart", "ToolReturnPart", "TextPart",
    ]  # fmt: skip


def test_images_come_back_byte_for_byte() -> None:
    kept = Conversation()
    image = BinaryContent(bytes(range(256)), media_type="image/png")
    kept.add("r1", [ModelRequest([UserPromptPart(["look", image])])])
    ((part,),) = [each.parts for each in stored(kept).messages([past("r1")])]
    assert isinstance(part, UserPromptPart)
    back = list(part.content)[1]
    assert isinstance(back, BinaryContent)
    assert (back.data, back.media_type) == (image.data, image.media_type)


def test_runs_that_were_not_kept_are_told_from_the_history() -> None:
    kept = Conversation()
    kept.add("r2", said("second", "2"))
    found = stored(kept).messages([past("r1", "first", "1"), past("r2"), past("r3", "third", "3")])
    assert texts(found) == ["first", "1", "second", "2", "third", "3"]


def test_a_failed_run_is_not_told() -> None:
    assert Conversation().messages([past("r1", output=None), past("r2", "again", "ok")]) != []
    assert texts(Conversation().messages([past("r1", output=None)])) == []


def test_a_run_that_the_history_no_longer_has_is_gone() -> None:
    kept = Conversation()
    kept.add("r1", said("first", "1"))
    kept.add("r2", said("replaced", "2"))
    assert texts(stored(kept).messages([past("r1")])) == ["first", "1"]


def test_system_prompts_are_not_kept() -> None:
    kept = Conversation()
    first = ModelRequest([SystemPromptPart("be nice"), UserPromptPart("hi")], instructions="short")
    kept.add("r1", [ModelRequest([SystemPromptPart("alone")]), first])
    (only,) = stored(kept).messages([past("r1")])
    assert isinstance(only, ModelRequest)
    assert [type(part) for part in only.parts] == [UserPromptPart]
    assert b"be nice" not in kept.dump()
    assert b"short" not in kept.dump()


def test_the_oldest_runs_are_forgotten_until_the_rest_fits() -> None:
    kept = Conversation()
    for number in range(4):
        kept.add(f"r{number}", said(f"{number}" * 1000))
    kept.trim(3000)
    assert list(kept.turns) == ["r2", "r3"]
    kept.trim(10)
    assert kept.turns == {}


def test_what_goes_on_for_a_forgotten_run_is_left_out() -> None:
    kept = Conversation()
    kept.add("r1", called("a"))
    kept.add("r2", returned())
    kept.trim(len(kept.turns["r2"]))
    assert texts(kept.messages([past("r1", output=None), past("r2", "")])) == []


def test_what_the_last_run_waits_for_comes_back() -> None:
    kept = Conversation()
    wanted = DeferredToolRequests(
        calls=[ToolCallPart("ask", {}, tool_call_id="1")],
        approvals=[ToolCallPart("buy", {"n": 2}, tool_call_id="2")],
        metadata={"2": {"why": "money"}},
        _kinds={"1": "question"},
    )
    kept.add("r1", called("a"), wanted)
    found = stored(kept).waiting
    assert found == wanted
    assert found.kind("1") == "question"
    kept.add("r2", returned())
    assert stored(kept).waiting is None


@pytest.mark.parametrize(
    "damaged",
    [b"", b"[]", b"{}", b'{"format":2,"turns":[]}', b'{"format":1,"turns":[{"run":"r1"}]}'],
)
def test_what_cannot_be_read_says_so(damaged: bytes) -> None:
    with pytest.raises(NotKept):
        Conversation.load(damaged)


def test_a_run_of_another_version_says_so_when_it_is_read() -> None:
    kept = Conversation({"r1": b'[{"kind":"telepathy"}]'})
    with pytest.raises(NotKept):
        kept.messages([past("r1")])
