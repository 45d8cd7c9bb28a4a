"""The user of a run without a chain: answers what the agent asks as a test has written it.

Invariant: an answer is checked against its schema as a chain does it; a question for which there is no answer
fails where it is asked, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import orjson

from factorychain._core.answer_schema import BadSchema, check_schema, problem_of
from factorychain._core.event_json import message_object
from factorychain._instance.events import input_received
from factorychain._instance.values import dumps
from factorychain.errors import InvalidField
from factorychain.input import Json
from factorychain.types.v1.event_pb2 import Event

Answer: TypeAlias = "Json | Exception"
"""What is answered; an exception is raised in its place: `InputTimeout()`."""
Answers: TypeAlias = "Sequence[Answer] | Callable[[dict[str, Json]], Answer]"
"""One after the other, or by what is asked: the data of `input_requested`."""


class ScriptedUser:
    """Answers."""

    def __init__(self, answers: Answers, say: Callable[[bytes], None]) -> None:
        """`say` takes the events of questions and answers."""
        self._script = answers
        self._left = iter(()) if callable(answers) else iter(answers)
        self._say = say

    def ask(self, event: bytes, timeout_s: float) -> bytes:
        """The answer to a serialized `input_requested`, as JSON."""
        asked = Event.FromString(event)
        data = asked.input_requested
        try:
            check_schema(data.schema_json)
        except BadSchema as error:
            raise InvalidField("schema", str(error)) from error
        data.expires_at.FromNanoseconds(time.time_ns() + int(timeout_s * 1e9))
        self._say(asked.SerializeToString())
        answer = self._answer(orjson.loads(orjson.dumps(message_object(data))))
        if isinstance(answer, Exception):
            self._say(input_received(asked, "null", "EXPIRED"))
            raise answer
        value_json = dumps(answer)
        problem = problem_of(data.schema_json, value_json)
        if problem:
            raise ValueError(f"the answer to {data.prompt!r} does not fit its schema: {problem}")
        self._say(input_received(asked, value_json))
        return value_json.encode()

    def _answer(self, asked: dict[str, Json]) -> Answer:
        if callable(self._script):
            return self._script(asked)
        try:
            return next(self._left)
        except StopIteration:
            raise LookupError(
                f"the agent asks {asked['prompt']!r} and there is no answer left; give answers=[…]"
            ) from None
