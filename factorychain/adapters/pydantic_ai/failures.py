"""What ends an agent's run, as endings that a user understands.

Invariant: no text of a vendor reaches a user, who could read there what is the operator's; it is in the
log. What the gateway refused was written for users. A mistake of the agent's author is no such ending.
"""

from __future__ import annotations

import sys
from typing import Final

from pydantic_ai import exceptions as pydantic_errors

from factorychain._instance.model_troubles import trouble_of
from factorychain.errors import AgentError

_ENDINGS: Final[tuple[tuple[type[Exception], str, str, bool], ...]] = (
    (pydantic_errors.ModelAuthenticationError, "MODEL_CREDENTIAL_REFUSED",
     "The model's provider does not accept the operator's key", False),
    (pydantic_errors.ModelNotFoundError, "MODEL_NOT_FOUND",
     "The model's provider has no such model", False),
    (pydantic_errors.ModelContextWindowExceededError, "INPUT_TOO_LONG",
     "The input is too long for the model", False),
    (pydantic_errors.ModelRequestRejectedError, "MODEL_REQUEST_REFUSED",
     "The model's provider refused the request", False),
    (pydantic_errors.ModelQuotaExceededError, "MODEL_QUOTA_EXCEEDED",
     "The operator's quota with the model's provider is used up", False),
    (pydantic_errors.ModelRateLimitError, "MODEL_RATE_LIMITED",
     "The model's provider has too many requests; try again later", True),
    (pydantic_errors.UsageLimitExceeded, "USAGE_LIMIT",
     "The agent reached the limit of what it may use of its model in a run", False),
    (pydantic_errors.ConcurrencyLimitExceeded, "AGENT_BUSY",
     "The agent is busy; try again later", True),
    (pydantic_errors.ContentFilterError, "CONTENT_FILTERED",
     "The model's provider filtered the answer", False),
    (pydantic_errors.OutputTokenLimitExceeded, "ANSWER_CUT",
     "The model's answer was cut off at its limit of tokens", False),
    (pydantic_errors.UnexpectedModelBehavior, "MODEL_MISBEHAVED",
     "The model did not answer in the form that the agent needs", True),
    (pydantic_errors.RunTimedOut, "AGENT_TIMEOUT",
     "The agent took longer than it allows itself", True),
    (pydantic_errors.RunCancelled, "AGENT_STOPPED", "The agent stopped its run", False),
)  # fmt: skip
"""The first that fits counts."""
REFUSED: Final = (pydantic_errors.ModelRequestRejectedError, pydantic_errors.ContentFilterError)
"""What would be refused again if it were said again."""
_OTHER: Final = ("MODEL_UNAVAILABLE", "The model cannot be reached now; try again later", True)
_BROKEN: Final = ("MODEL_STREAM_BROKEN", "The model's answer broke off; try again", True)


def explained(error: Exception, *, answering: bool) -> AgentError:
    """The ending for an error of Pydantic AI's; its details go to the log.

    Args:
        error: what was raised.
        answering: whether it came in the middle of an answer.
    """
    sys.stderr.write(f"the agent ended: {type(error).__name__}: {error}\n")
    refused = trouble_of(error)
    # Of what a vendor refused, Pydantic AI knows more.
    if refused is not None and refused.reason != "MODEL_REQUEST_REFUSED":
        return _ended(refused.reason, refused.text, refused.retryable, refused.retry_after_s)
    while isinstance(error, pydantic_errors.FallbackExceptionGroup):
        error = error.exceptions[-1]  # of the model that was tried last
    told = next((each[1:] for each in _ENDINGS if isinstance(error, each[0])), _OTHER)
    if not isinstance(error, pydantic_errors.ModelAPIError):
        return _ended(*told)
    return _ended(*(_BROKEN if answering else told), error.retry_after)


def _ended(
    reason: str, text: str, retryable: bool, retry_after_s: float | None = None
) -> AgentError:
    return AgentError(text, reason=reason, retryable=retryable, retry_after_s=retry_after_s)
