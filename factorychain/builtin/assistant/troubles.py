"""What goes wrong between the assistant and its model, as endings that a user understands.

Invariant: no text of a vendor reaches a user, who could read there what is the operator's; it is in the log.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final

import httpx2
import openai

from factorychain._instance.model_troubles import TEXTS, trouble_of
from factorychain.errors import AgentError

FAILURES: Final = (openai.OpenAIError, httpx2.HTTPError, ValueError)
"""What asking raises: also what the client passes on of a stream that is cut, or is no JSON."""
_WINDOW: Final = re.compile(
    r"context.?(length|window|size)|maximum context|too many tokens|prompt is too long",
    re.IGNORECASE,
)
_UNAVAILABLE: Final = "MODEL_UNAVAILABLE"
_BY_STATUS: Final = {
    401: "MODEL_CREDENTIAL_REFUSED",
    403: "MODEL_CREDENTIAL_REFUSED",
    429: "MODEL_RATE_LIMITED",
}
"""Without a gateway, which says it itself."""
_RETRYABLE: Final = frozenset({_UNAVAILABLE, "MODEL_RATE_LIMITED"})


def is_window_exceeded(error: Exception) -> bool:
    """Whether the model's window is smaller than was thought."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 413):
        return False
    return error.code == "context_length_exceeded" or bool(_WINDOW.search(str(error.body)))


def broken_off(error: Exception | None = None) -> AgentError:
    """The answer ended in its middle."""
    if error is not None:
        _tell(error)
    text = "The model's answer broke off; try again"
    return AgentError(text, reason="MODEL_STREAM_BROKEN", retryable=True)


def explained(error: Exception) -> AgentError:
    """The ending for what `ask` raised; its details go to the log."""
    found = trouble_of(error)
    if found is not None:
        _tell(error)
        return AgentError(
            found.text,
            reason=found.reason,
            retryable=found.retryable,
            retry_after_s=found.retry_after_s,
        )
    if isinstance(error, openai.APIStatusError):
        _tell(error)
        return _of_status(error.status_code, error.response.headers)
    if isinstance(error, openai.APIConnectionError):
        _tell(error)
        return _of_status(503, {})
    return broken_off(error)


def _of_status(status: int, headers: Mapping[str, str]) -> AgentError:
    otherwise = "MODEL_REQUEST_REFUSED" if 400 <= status < 500 else _UNAVAILABLE
    reason = _BY_STATUS.get(status, otherwise)
    return AgentError(
        TEXTS[reason],
        reason=reason,
        retryable=reason in _RETRYABLE,
        retry_after_s=_seconds(headers),
    )


def _tell(error: Exception) -> None:
    why = f": {error.__cause__!r}" if error.__cause__ is not None else ""
    sys.stderr.write(f"the model failed: {type(error).__name__}: {error}{why}\n")


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`retry-after` in seconds; as a date it is left out."""
    try:
        return max(float(headers.get("retry-after", "")), 0.0)
    except ValueError:
        return None
