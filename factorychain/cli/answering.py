"""Questions of agents at a terminal: shown, answered by a typed line, or answered from elsewhere.

Invariant: one question is asked at a time; what is typed goes to the question that was shown, and one that
was answered elsewhere, or is over, is asked no longer.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import orjson
from rich.text import Text

from factorychain.cli.events_view import short
from factorychain.cli.output import err
from factorychain.client import Json, JsonObject, Run
from factorychain.errors import FactoryChainError, InvalidField

_YES = frozenset({"y", "yes", "true", "approve"})
_NO = frozenset({"n", "no", "false", "deny", "refuse"})

Respond = Callable[[str, str, Json], Awaitable[Run | None]]


@dataclass(frozen=True, slots=True)
class Question:
    """What the user is asked, and by which run."""

    run: str
    data: JsonObject

    @property
    def request(self) -> str:
        return str(self.data.get("request", ""))

    @property
    def is_yes_or_no(self) -> bool:
        return self._schema.get("type") == "boolean"

    @property
    def _schema(self) -> JsonObject:
        found = self.data.get("schema")
        return found if isinstance(found, dict) else {}

    def shown(self) -> Text:
        """The question for a terminal, without a line end."""
        tool = self.data.get("tool")
        call = f"  {tool} {short(self.data.get('arguments'))}" if tool else ""
        choices = self._schema.get("enum")
        expected = f"  {short(choices)}" if choices else ""
        if self.is_yes_or_no:
            expected = "  [y/n]"
        elif not choices and self._schema.get("type") not in (None, "string"):
            expected = f"  {short(self._schema)}"
        prompt = str(self.data.get("prompt", ""))
        return Text.assemble(
            ("      asks  ", "bold magenta"), prompt, (f"{call}{expected} ", "dim")
        )

    def answer(self, line: str) -> Json:
        """What a line that was typed means."""
        if self.is_yes_or_no and line.lower() in _YES | _NO:
            return line.lower() in _YES
        if self._schema.get("type") == "string" or not self._schema:
            return line
        return parsed(line)


def parsed(text: str) -> Json:
    """The JSON of a text; the text itself if it is none."""
    try:
        found: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return found


class Answering:
    """Asks at the terminal what agents ask."""

    def __init__(self, respond: Respond, how: Callable[[Question], str], interactive: bool) -> None:
        """`how` says with which command a question is answered from elsewhere."""
        self._respond = respond
        self._how = how
        self._interactive = interactive
        self._waiting: deque[Question] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._now: Question | None = None

    def ask(self, question: Question) -> None:
        """A run asks and waits."""
        if not self._interactive:
            err.print(question.shown())
            err.print(Text(f"    answer  {self._how(question)}", "dim"))
            return
        self._waiting.append(question)
        self._go_on()

    def settled(self, request: str) -> None:
        """The question has an answer, or is over."""
        self._waiting = deque(each for each in self._waiting if each.request != request)
        if self._now is not None and self._now.request == request and self._asking is not None:
            self._asking.cancel()
            self._now = None

    async def close(self) -> None:
        """Ask nothing more."""
        self._waiting.clear()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def pending(self, run: Run) -> Run | None:
        """Ask what a run has ended with; the run that goes on, if one does."""
        questions = [Question(run.id, each) for each in run.ending.questions] if run.ending else []
        if questions and not self._interactive:
            for each in questions:
                self.ask(each)
            return None
        goes_on: Run | None = None
        for each in questions:
            goes_on = await self._answered(each)
        return goes_on

    def _go_on(self, _: object = None) -> None:
        if self._waiting and (self._asking is None or self._asking.done()):
            self._now = self._waiting.popleft()
            self._asking = asyncio.ensure_future(self._ask_one(self._now))
            self._asking.add_done_callback(self._go_on)

    async def _ask_one(self, question: Question) -> None:
        await self._answered(question)

    async def _answered(self, question: Question) -> Run | None:
        """Until an answer is taken, or the terminal has no more."""
        while True:
            err.print(question.shown(), end="")
            line = await _line()
            if not line:
                err.print(Text(f"\n    answer  {self._how(question)}", "dim"))
                return None
            self._now = None if self._now is question else self._now
            try:
                return await self._respond(
                    question.run, question.request, question.answer(line.strip())
                )
            except InvalidField as error:
                self._now = question
                err.print(f"            {error.message}", markup=False)
            except FactoryChainError as error:
                err.print(f"            {error.message} ({error.reason})", markup=False)
                return None


async def _line() -> str:
    """What is typed, with its line end; empty at the end. A thread could not be told to stop."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()

    def readable() -> None:
        line = sys.stdin.readline()
        if not ready.done():
            ready.set_result(line)

    loop.add_reader(sys.stdin.fileno(), readable)
    try:
        return await ready
    finally:
        with suppress(ValueError):
            loop.remove_reader(sys.stdin.fileno())
