"""One run asks its user: the questions go out as events, the answers come in by `Respond`.

Invariant: `input_requested` that was sent is followed by one `input_received`, with the answer or with why
there is none, before the run's ending; the agent has an answer only after that event is on its way; and
while a question is open the run is waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from factorychain._core.answer_schema import BadSchema, check_schema, problem_of
from factorychain._core.crash_points import crash_point
from factorychain._instance.events import input_received
from factorychain._instance.waiting import Waiting
from factorychain.errors import EventRejected, InputTimeout, InvalidField, RunNotFound
from factorychain.types.v1.event_pb2 import Event, InputKind
from factorychain_agents.questions import CANCELLED, EXPIRED, WITHDRAWN, Questions

_OVERHEAD_BYTES = 1024


class Saying(Protocol):
    """Sends events of the run."""

    async def send_question(self, request: str, event: bytes) -> None:
        """Send a question; who is cancelled meanwhile has sent it."""

    def settle_question(self, request: str, event: bytes) -> None:
        """Send that a question is over."""


class AskedUser:
    """The user of one run, as its agent asks them."""

    def __init__(
        self,
        saying: Saying,
        waiting: Waiting,
        changed: Callable[[], None],
        *,
        trace: str,
        event_max_bytes: int,
    ) -> None:
        """`changed` is called when the run begins to wait, or ends to."""
        self._saying = saying
        self._waiting = waiting
        self._changed = changed
        self._trace = trace
        self._event_max_bytes = event_max_bytes
        self._questions = Questions()
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._asked: dict[str, Event] = {}
        self.ending = False
        """Whether the run is being ended: what is closed now is closed for that."""

    async def ask(self, event: bytes, timeout_s: float) -> bytes:
        """As `RunHost.ask`."""
        asked = self._checked(event)
        data = asked.input_requested
        await _check_schema(data.schema_json)
        limit_s = min(timeout_s, self._waiting.left_s(time.monotonic()))
        if limit_s <= 0:
            raise InputTimeout("The run has waited for its user for as long as a run may")
        self._questions.ask(data.request, data.schema_json)
        self._asked[data.request] = _small(asked)
        data.expires_at.FromNanoseconds(time.time_ns() + int(limit_s * 1e9))
        self._begin()
        try:
            return await self._answer(data.request, asked.SerializeToString(), limit_s)
        except asyncio.CancelledError:
            self._close(data.request, CANCELLED if self.ending else WITHDRAWN)
            raise
        except BaseException:
            self._close(data.request, CANCELLED)
            raise
        finally:
            self._answers.pop(data.request, None)
            self._end()

    async def respond(self, request: str, value_json: str) -> None:
        """The user's answer. The same again changes nothing.

        Raises:
            InvalidField: it does not fit; the question stays open.
            RequestNotFound, RequestAnswered, RequestClosed: nobody waits for it.
            RunNotFound: the run is ending.
        """
        if len(value_json.encode()) > self._event_max_bytes - _OVERHEAD_BYTES:
            raise InvalidField("value", f"must have less than {self._event_max_bytes} bytes")
        if self.ending and request not in self._questions.open:
            raise RunNotFound
        schema_json = self._questions.schema_of(request, value_json)
        if schema_json is None:
            return
        problem = await asyncio.to_thread(problem_of, schema_json, value_json)
        if problem:
            raise InvalidField("value", problem)
        # Others may have answered meanwhile; from here on nothing is awaited.
        if not self._questions.answer(request, value_json):
            return
        self._settle(request, value_json)
        answer = self._answers.get(request)
        if answer is not None and not answer.done():
            answer.set_result(value_json.encode())
        crash_point("agents.answer.taken")

    def close_all(self) -> None:
        """The run ends: nothing is answered any more."""
        self.ending = True
        for request in self._questions.open:
            self._close(request, CANCELLED)

    async def _answer(self, request: str, event: bytes, limit_s: float) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        try:
            async with asyncio.timeout(limit_s):
                await self._saying.send_question(request, event)
                return await answer
        except TimeoutError:
            if answer.done() and not answer.cancelled():  # it came at the same moment
                return answer.result()
            self._close(request, EXPIRED)
            raise InputTimeout(f"Nobody answered within {limit_s:g} s") from None

    def _checked(self, event: bytes) -> Event:
        asked = Event.FromString(event)
        if not asked.HasField("input_requested"):
            raise EventRejected("INVALID_FIELD", "a question is an input_requested")
        if asked.trace.split("-")[1:2] != self._trace.split("-")[1:2]:
            raise EventRejected("INVALID_FIELD", "the question is of another trace")
        if asked.input_requested.kind == InputKind.INPUT_KIND_UNSPECIFIED:
            raise EventRejected("INVALID_FIELD", "a question has a kind")
        return asked

    def _close(self, request: str, why: str) -> None:
        if self._questions.close(request, why):
            self._settle(request, "null", why)

    def _settle(self, request: str, value_json: str, closed: str = "") -> None:
        asked = self._asked.pop(request)
        self._saying.settle_question(request, input_received(asked, value_json, closed))

    def _begin(self) -> None:
        waited = self._waiting.now
        self._waiting.begin(time.monotonic())
        if not waited:
            self._changed()

    def _end(self) -> None:
        self._waiting.end(time.monotonic())
        if not self._waiting.now:
            self._changed()


def _small(asked: Event) -> Event:
    """What the end of a question needs of it."""
    kept = Event(trace=asked.trace, path=asked.path)
    kept.input_requested.request = asked.input_requested.request
    return kept


async def _check_schema(schema_json: str) -> None:
    if not schema_json:
        return
    try:
        await asyncio.to_thread(check_schema, schema_json)
    except BadSchema as error:
        raise InvalidField("schema", str(error)) from error
