"""What goes wrong between the assistant and its model, as endings that a user understands.

Invariant: no text of a vendor reaches a user, who could read there what is the operator's; it is in the log.
What the gateway refused was written for users.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final

import httpx2
import openai

from factorychain.errors import AgentError

REASON_HEADER: Final = "x-factorychain-reason"
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{2,63}")
_WINDOW: Final = re.compile(
    r"context.?(length|window|size)|maximum context|too many tokens|prompt is too long",
    re.IGNORECASE,
)
_CREDENTIAL = (
    "MODEL_CREDENTIAL_REFUSED",
    "The model's provider does not accept the operator's key",
)
_BY_STATUS: Final = {
    400: ("MODEL_REQUEST_REFUSED", "The model's provider refused the request"),
    401: _CREDENTIAL,
    403: _CREDENTIAL,
    404: ("MODEL_NOT_FOUND", "The model's provider has no such model"),
    413: ("INPUT_TOO_LONG", "The input is too long for the model"),
    422: ("MODEL_REQUEST_REFUSED", "The model's provider refused the request"),
    429: ("MODEL_RATE_LIMITED", "The model's provider has too many requests; try again later"),
}
_UNAVAILABLE = ("MODEL_UNAVAILABLE", "The model cannot be reached now; try again later")
FAILURES: Final = (openai.OpenAIError, httpx2.HTTPError, ValueError)
"""What asking raises: also what the client passes on of a stream that is cut, or is no JSON."""
_RETRYABLE = frozenset({"MODEL_RATE_LIMITED", "MODEL_UNAVAILABLE", "MODEL_STREAM_BROKEN"})


def is_window_exceeded(error: Exception) -> bool:
    """Whether the model's window is smaller than was thought."""
    if not isinstance(error, openai.BadRequestError):
        return False
    return error.code == "context_length_exceeded" or bool(_WINDOW.search(error.message))


def broken_off(error: Exception | None = None) -> AgentError:
    """The answer ended in its middle."""
    if error is not None:
        _tell(error)
    return _told("MODEL_STREAM_BROKEN", "The model's answer broke off; try again")


def explained(error: Exception) -> AgentError:
    """The ending for what `ask` raised; its details go to the log."""
    _tell(error)
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APIConnectionError):
        return _told(*_UNAVAILABLE)
    if isinstance(error, openai.APIError):
        return _in_stream(error)
    return broken_off()


def _tell(error: Exception) -> None:
    why = f": {error.__cause__!r}" if error.__cause__ is not None else ""
    sys.stderr.write(f"the model failed: {type(error).__name__}: {error}{why}\n")


def _of_status(error: openai.APIStatusError) -> AgentError:
    retry_after_s = _seconds(error.response.headers)
    reason = error.response.headers.get(REASON_HEADER, "")
    if _REASON.fullmatch(reason):
        return _of_gateway(reason, error, retry_after_s, retryable=error.status_code in (429, 503))
    reason, text = _BY_STATUS.get(error.status_code, _UNAVAILABLE)
    return _told(reason, text, retry_after_s)


def _in_stream(error: openai.APIError) -> AgentError:
    """An error as the last that a stream has: of the gateway if its code is one of our reasons."""
    if error.code and _REASON.fullmatch(error.code):
        return _of_gateway(error.code, error, None, retryable=error.code in _RETRYABLE)
    return broken_off()


def _of_gateway(
    reason: str, error: openai.APIError, retry_after_s: float | None, *, retryable: bool
) -> AgentError:
    body = error.body
    text = body.get("message") if isinstance(body, Mapping) else None
    return AgentError(
        text if isinstance(text, str) and text else error.message,
        reason=reason,
        retryable=retryable or reason in _RETRYABLE,
        retry_after_s=retry_after_s,
    )


def _told(reason: str, text: str, retry_after_s: float | None = None) -> AgentError:
    return AgentError(
        text, reason=reason, retryable=reason in _RETRYABLE, retry_after_s=retry_after_s
    )


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`retry-after` in seconds; as a date it is left out."""
    try:
        return max(float(headers.get("retry-after", "")), 0.0)
    except ValueError:
        return None
