"""What became of requests to models, told from the gateway through any client library to the run's ending.

Libraries raise errors of their own for what the gateway answers, and frameworks wrap these; what they keep
is the response or its body. Invariant: only our own texts reach users from here, chosen by the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from factorychain._causes import causes

REASON_HEADER: Final = "x-factorychain-reason"
"""Of the gateway's answer: the reason of the ending that an agent gets which lets the error pass."""
MARK: Final = "factorychain"
"""Key in the error of a body, with the same; an error in the middle of a stream has no headers."""

TEXTS: Final[Mapping[str, str]] = {
    "MODEL_UNAVAILABLE": "The model cannot be reached right now; try again later",
    "MODEL_RATE_LIMITED": "The model's provider has too many requests; try again later",
    "MODEL_CREDENTIAL_REFUSED": "The model's provider does not accept the operator's key",
    "MODEL_REQUEST_REFUSED": "The model's provider refused the request",
    "MODEL_NOT_ALLOWED": "The agent asked for a model that the operator does not allow",
    "MODEL_REQUEST_INVALID": "The agent's request to the model is not one",
    "BUDGET_EXHAUSTED": "The budget for models is used up",
    "GATEWAY_KEY_INVALID": "The agent's request to the model did not carry its run's key",
    "CREDENTIAL_NOT_FOUND": "The agent asked for a service that the operator has not mapped for its user",
    "SERVICE_UNAVAILABLE": "A service that the agent uses cannot be reached right now; try again later",
}
_SECONDS_MAX: Final = 1e9


@dataclass(frozen=True, slots=True)
class ModelTrouble:
    """Why a run failed for which a model, or a service behind the gateway, was not there."""

    reason: str
    text: str
    retryable: bool
    retry_after_s: float | None


def trouble_of(error: BaseException) -> ModelTrouble | None:
    """What the gateway said, if that is what an error was raised for, or what it was raised from."""
    for each in causes(error):
        found = _in_body(getattr(each, "body", None)) or _in_response(each)
        if found is not None:
            return found
    return None


def _in_body(body: object) -> ModelTrouble | None:
    """The body, or its error, as libraries keep it."""
    for each in (body, body.get("error") if isinstance(body, Mapping) else None):
        mark = each.get(MARK) if isinstance(each, Mapping) else None
        if isinstance(mark, Mapping):
            return _trouble(mark.get("reason"), mark.get("retryable"), mark.get("retry_after_s"))
    return None


def _in_response(error: BaseException) -> ModelTrouble | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    reason = headers.get(REASON_HEADER) if isinstance(headers, Mapping) else None
    if reason is None or not isinstance(headers, Mapping):
        return None
    retry_after_s = _seconds(headers.get("retry-after"))
    waits = reason in ("MODEL_UNAVAILABLE", "MODEL_RATE_LIMITED") or retry_after_s is not None
    return _trouble(reason, waits, retry_after_s)


def _trouble(reason: object, retryable: object, retry_after_s: object) -> ModelTrouble | None:
    if not isinstance(reason, str) or reason not in TEXTS:
        return None
    return ModelTrouble(reason, TEXTS[reason], retryable is True, _seconds(retry_after_s))


def _seconds(found: object) -> float | None:
    try:
        value = float(found)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if 0 <= value < _SECONDS_MAX else None
