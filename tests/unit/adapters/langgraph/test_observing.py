"""What is observed beside a graph's stream."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tools import tool

from factorychain._instance.model_access import Noted, note_requests
from factorychain.adapters.langgraph.observing import Consumed, Observer


async def test_a_model_says_nothing_once_the_run_is_being_stopped() -> None:
    observer = Observer(lambda consumed: None, lambda: True)
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    with pytest.raises(asyncio.CancelledError):
        await model.ainvoke("hi", config={"callbacks": [observer]})


def test_the_next_token_ends_a_stream_whose_cancel_was_swallowed() -> None:
    said: list[object] = []
    observer = Observer(lambda consumed: None, lambda: len(said) == 3)
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three four")]))
    stream = model.stream("hi", config={"callbacks": [observer]})
    with pytest.raises(asyncio.CancelledError):
        said.extend(each.content for each in stream)
    assert said == ["one", " ", "two"]


@tool
def breaks(text: str) -> str:
    """Breaks."""
    raise ValueError(text)


async def test_errors_of_tools_are_found_by_call_in_their_order() -> None:
    observer = Observer(lambda consumed: None, lambda: False)
    for text in ("first", "second"):
        call = {"name": "breaks", "args": {"text": text}, "id": "c1", "type": "tool_call"}
        with pytest.raises(ValueError, match=text):
            await breaks.ainvoke(call, config={"callbacks": [observer]})
    assert [str(observer.error_of("c1")) for _ in range(3)] == ["first", "second", "None"]
    assert observer.error_of("c2") is None


@pytest.mark.parametrize("through_gateway", [True, False])
def test_what_the_gateway_has_counted_is_not_counted_again(
    through_gateway: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Noted] = []

    def note() -> Noted:
        made.append(note_requests())
        return made[-1]

    monkeypatch.setattr("factorychain.adapters.langgraph.observing.note_requests", note)
    heard: list[Consumed] = []
    observer, run = Observer(heard.append, lambda: False), uuid4()
    observer.on_chat_model_start({}, [[]], run_id=run)
    made[0].through_gateway = through_gateway
    usage: Any = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    message = AIMessage("hi", usage_metadata=usage)
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    observer.on_llm_end(result, run_id=run)
    counted = [(each["input_tokens"], each["output_tokens"]) for each in heard]
    assert counted == ([] if through_gateway else [(3, 2)])
