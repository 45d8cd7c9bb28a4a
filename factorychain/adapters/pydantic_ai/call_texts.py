"""What is told of a tool call: its arguments, its result, why it did not go well.

Invariant: of what went wrong users read what was written for the model or for them, and nothing of other
errors.
"""

from __future__ import annotations

from typing import Final

from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)
from pydantic_ai.messages import ToolCallPart, ToolReturn, ToolReturnPart

from factorychain._instance.open_call import OpenCall

_REASONS: Final = {"retried": "RETRY", "denied": "REFUSED", "interrupted": "CANCELLED"}
_FAILED: Final = "TOOL_ERROR"
_INTERRUPTED: Final = "INTERRUPTED"


def arguments(call: ToolCallPart) -> dict[str, object] | str:
    """As the model wrote them: text, if that is no object."""
    try:
        return call.args_as_dict(raise_if_invalid=True)
    except (ValueError, AssertionError):
        return str(call.args)


def plain(result: object) -> object:
    """What a tool returned, without what is for the model or the application alone."""
    return result.return_value if isinstance(result, ToolReturn) else result


async def end_with(shown: OpenCall, part: ToolReturnPart) -> None:
    """The call is over, with what the model gets."""
    if part.outcome == "success":
        await shown.end(plain(part.content))
    elif isinstance(part.content, list) and part.outcome == "retried":
        await shown.fail("INVALID_ARGUMENTS", f"{part.tool_name}: {_problems(part.content)}")
    else:
        text = part.model_response_str(wrap_if_error=False)
        await shown.fail(_REASONS.get(part.outcome, _FAILED), text)


async def fail_by(shown: OpenCall, error: BaseException) -> None:
    """The call is over, with what was raised."""
    if isinstance(error, ToolRetryError | ModelRetry):
        await shown.fail("RETRY", str(error))
    elif isinstance(error, ToolFailedError | ToolFailed):
        await shown.fail(_FAILED, str(error))
    elif isinstance(error, ApprovalRequired):
        await shown.fail(_INTERRUPTED, "The call waits for an approval")
    elif isinstance(error, CallDeferred):
        await shown.fail(_INTERRUPTED, "The call waits for an answer")
    else:
        await shown.failed_by(error)


def _problems(details: list[object]) -> str:
    """pydantic's list of what does not fit, in one line."""
    found = [each for each in details if isinstance(each, dict)]
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
