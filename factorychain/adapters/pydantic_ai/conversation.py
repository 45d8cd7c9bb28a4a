"""The conversation of a thread in Pydantic AI's own messages, as it is kept between runs.

Invariant: which runs there were, and in what order, the thread's history says; what is kept here adds
what was said inside them. So a run that was replaced, or was another agent's, counts for what it is in
the history, and a conversation that was not kept is still known from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.tools import DeferredToolRequests

from factorychain.adapters.pydantic_ai.prompt import user_prompt
from factorychain.history import PastRun

_FORMAT: Final = 1
_REQUESTS: Final = TypeAdapter(DeferredToolRequests)
# Else it is built when it is first used: 35 ms in the process of every run.
ModelMessagesTypeAdapter.rebuild()


class NotKept(ValueError):
    """What is kept cannot be read: it is of another version, or damaged."""


@dataclass(slots=True)
class Conversation:
    """What is kept of a thread."""

    turns: dict[str, bytes] = field(default_factory=dict)
    """JSON of the messages of each run, by the run's id, in their order."""
    waiting: DeferredToolRequests | None = None
    """What the last run asked for before it ended."""

    def add(
        self,
        run: str,
        messages: Iterable[ModelMessage],
        waiting: DeferredToolRequests | None = None,
    ) -> None:
        """A run has ended, with these messages of its own."""
        kept = [each for each in map(_without_system_prompt, messages) if each is not None]
        self.turns.pop(run, None)
        if kept:
            self.turns[run] = ModelMessagesTypeAdapter.dump_json(kept)
        self.waiting = waiting

    def only(self, runs: Iterable[str]) -> None:
        """Forget every other run: it was replaced, or is too long ago."""
        known = set(runs)
        self.turns = {run: kept for run, kept in self.turns.items() if run in known}

    def trim(self, limit_bytes: int) -> None:
        """Forget the oldest runs until the rest fits."""
        size = sum(map(len, self.turns.values()))
        while size > limit_bytes:
            oldest = next(iter(self.turns))
            size -= len(self.turns.pop(oldest))

    def messages(self, past: Sequence[PastRun]) -> list[ModelMessage]:
        """The conversation up to now, of the runs in the thread's history, the oldest first."""
        found: list[ModelMessage] = []
        for run in past:
            kept = self._read(run.run)
            # The rest of a run that waited says nothing without its beginning.
            if kept and (found or _is_users(kept[0])):
                found += kept
            elif not kept:
                found += _told(run)
        return found

    def everything(self) -> list[ModelMessage]:
        """All that is kept, in its order."""
        return [each for run in self.turns for each in self._read(run)]

    def dump(self) -> bytes:
        """As it is stored."""
        turns = [
            {"run": run, "messages": orjson.Fragment(each)} for run, each in self.turns.items()
        ]
        waiting = orjson.Fragment(_REQUESTS.dump_json(self.waiting)) if self.waiting else None
        return orjson.dumps({"format": _FORMAT, "turns": turns, "waiting": waiting})

    @classmethod
    def load(cls, stored: bytes) -> Conversation:
        """What `dump` made.

        Raises:
            NotKept: it did not make this.
        """
        try:
            found = orjson.loads(stored)
            if found["format"] != _FORMAT:
                raise NotKept(f"its format is {found['format']!r}")
            turns = {each["run"]: orjson.dumps(each["messages"]) for each in found["turns"]}
            waiting = found["waiting"]
            return cls(turns, _REQUESTS.validate_python(waiting) if waiting else None)
        except (KeyError, TypeError, orjson.JSONDecodeError, ValidationError) as error:
            raise NotKept(str(error)) from error

    def _read(self, run: str) -> list[ModelMessage]:
        kept = self.turns.get(run)
        try:
            return ModelMessagesTypeAdapter.validate_json(kept) if kept else []
        except ValidationError as error:
            raise NotKept(str(error)) from error


def _without_system_prompt(message: ModelMessage) -> ModelMessage | None:
    """System prompts are the agent's, and made anew for each run."""
    if not isinstance(message, ModelRequest):
        return message
    parts = [each for each in message.parts if not isinstance(each, SystemPromptPart)]
    return replace(message, parts=parts, instructions=None) if parts else None


def later_half(messages: Sequence[ModelMessage]) -> list[ModelMessage] | None:
    """The conversation without its older turns; None: there is nothing left to leave out."""
    if not messages:
        return None
    turns = [at for at, each in enumerate(messages) if _is_users(each)]
    return list(messages[turns[(len(turns) + 1) // 2] :]) if len(turns) > 1 else []


def _is_users(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and any(
        isinstance(each, UserPromptPart) for each in message.parts
    )


def _told(run: PastRun) -> list[ModelMessage]:
    """A run as the history has it: what the user said, and what came of it."""
    if run.state != "completed" or run.output is None:
        return []
    answer = run.text or orjson.dumps(run.output).decode()
    return [
        ModelRequest([UserPromptPart(user_prompt(run.input))]),
        ModelResponse([TextPart(answer)]),
    ]
