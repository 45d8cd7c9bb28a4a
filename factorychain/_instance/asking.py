"""Asking the user from an agent's code.

Invariant: while a question is open the run counts as waiting, here as with its host; who is cancelled while
asking has withdrawn the question.
"""

from __future__ import annotations

import time
from typing import Final

import orjson

from factorychain._instance.active import ActiveRun
from factorychain._instance.events import input_requested
from factorychain._instance.spec import InputRequest
from factorychain.errors import EventRejected, InputTimeout, RunEnded, ToolError
from factorychain.input import Json

ANSWER_WITHIN_S: Final = 300.0
"""How long an answer is waited for if nobody says otherwise."""
_YES_OR_NO: Final = '{"type":"boolean"}'


async def ask(run: ActiveRun, asked: InputRequest, timeout_s: float = ANSWER_WITHIN_S) -> Json:
    """The user's answer.

    Raises:
        InputTimeout: nobody has answered in time.
        EventRejected: the question is larger than an event, or the run asks more than one may.
        InvalidField: the schema cannot be used.
        RunEnded: the run is over.
        ValueError: the time is none.
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s}; it must be above 0")
    if run.closed:
        raise RunEnded("the run is over; nothing more can be asked in it")
    event = input_requested(run.trace, asked) + run.path.field
    limit = run.spec.event_max_bytes
    if len(event) > limit:
        raise EventRejected(
            "EVENT_TOO_LARGE", f"the question has {len(event)} bytes, the limit is {limit}"
        )
    run.waiting.begin(time.monotonic())
    try:
        found: Json = orjson.loads(await run.host.ask(event, timeout_s))
        return found
    finally:
        run.waiting.end(time.monotonic())


async def approved(
    run: ActiveRun, tool: str, arguments_json: str, *, call: str, prompt: str = ""
) -> None:
    """Return when the user has approved the call of a tool.

    Args:
        run: the run that it is in.
        tool: the tool's name.
        arguments_json: what it would be called with, a JSON object.
        call: the id that its `tool_executing` will have.
        prompt: what the user reads.

    Raises:
        ToolError: REFUSED, the user does not want it; APPROVAL_TIMEOUT, nobody has said so in time.
    """
    request = InputRequest(
        run.new_id("q"),
        "approval",
        prompt or f"Allow {tool}?",
        _YES_OR_NO,
        tool,
        arguments_json,
        call,
    )
    try:
        answer = await ask(run, request)
    except InputTimeout as error:
        raise ToolError(f"Nobody approved {tool} in time", "APPROVAL_TIMEOUT") from error
    if answer is not True:
        raise ToolError(f"The user refused {tool}", "REFUSED")
