"""Calls that wait for somebody: asked for as a run ends, answered as the next one begins.

Invariant: an answer is given to the call that asked for it, by the model's id of that call, and says no
more than that kind of answer can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolKind, DeferredToolRequests, DeferredToolResults

from factorychain.input import Json
from factorychain.interrupt import Interrupt, Request, RequestKind

_KINDS: Final[Mapping[DeferredToolKind, RequestKind]] = {
    "approval": "approval",
    "question": "question",
    "external": "tool",
}
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


def interrupt(waiting: DeferredToolRequests) -> Interrupt:
    """What ends the run with its requests, the approvals first."""
    return Interrupt([_request(waiting, id, call) for id, call in _by_request(waiting).items()])


def is_answered(waiting: DeferredToolRequests, answers: Mapping[str, Json]) -> bool:
    """Whether the answers are to these requests."""
    return _by_request(waiting).keys() <= answers.keys()


def results(waiting: DeferredToolRequests, answers: Mapping[str, Json]) -> DeferredToolResults:
    """What the calls have been answered: an approval only by true, the others by any value."""
    approved = {each.tool_call_id for each in waiting.approvals}
    given = {call.tool_call_id: answers.get(id) for id, call in _by_request(waiting).items()}
    return DeferredToolResults(
        approvals={id: value is True for id, value in given.items() if id in approved},
        calls={id: value for id, value in given.items() if id not in approved},
        metadata=waiting.metadata,
    )


def _by_request(waiting: DeferredToolRequests) -> dict[str, ToolCallPart]:
    """The calls by the ids of their requests, which are the model's where these can be such."""
    calls = [*waiting.approvals, *waiting.calls]
    return {
        each.tool_call_id if _ID.fullmatch(each.tool_call_id) else f"call-{at}": each
        for at, each in enumerate(calls)
    }


def _request(waiting: DeferredToolRequests, id: str, call: ToolCallPart) -> Request:
    said = waiting.metadata.get(call.tool_call_id, {}).get("prompt")
    return Request(
        request=id,
        kind=_KINDS[waiting.kind(call.tool_call_id)],
        prompt=said if isinstance(said, str) else "",
        tool=call.tool_name,
        arguments=cast("dict[str, Json]", call.args_as_dict()),
    )
