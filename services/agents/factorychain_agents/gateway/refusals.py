"""What the gateway answers instead of a model, in the form in which each vendor's own client expects it.

Invariant: the texts are for users: they name what happened, and nothing of where a server is or of the
operator's credential.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

import orjson

from factorychain._instance.model_troubles import MARK, REASON_HEADER, TEXTS
from factorychain.input import Json
from factorychain_agents.gateway.budgets import Exhausted

Form: TypeAlias = Literal["chat", "responses", "messages"]

_RETRYABLE: Final = frozenset({"MODEL_UNAVAILABLE", "MODEL_RATE_LIMITED"})
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


@dataclass(eq=False)  # not frozen: what passes it on sets its traceback
class Refusal(Exception):
    """A request that gets no answer of a model."""

    status: int
    reason: str
    """What the run's ending says if its agent lets this pass."""
    text: str = ""
    """More than the reason's own text says."""
    retry_after_s: float | None = None

    @property
    def message(self) -> str:
        """For people."""
        return self.text or TEXTS.get(self.reason, HTTPStatus(self.status).phrase)

    @property
    def retryable(self) -> bool:
        """Whether the same may succeed later."""
        return self.reason in _RETRYABLE or self.retry_after_s is not None

    def headers(self) -> dict[str, str]:
        """Clients try again by themselves, and what is worth it has been tried here already."""
        found = {
            "Content-Type": "application/json",
            "x-should-retry": "false",
            REASON_HEADER: self.reason,
        }
        if self.retry_after_s is not None:
            found["retry-after"] = str(math.ceil(self.retry_after_s))
        return found

    def body(self, form: Form) -> bytes:
        """Of an answer that has this status."""
        return orjson.dumps(self._whole(form))

    def frame(self, form: Form, number: int = 0) -> bytes:
        """The last event of a stream, where something was passed on already.

        Args:
            form: the protocol.
            number: of the event, where the protocol numbers them.
        """
        if form == "chat":
            return b"data: " + self.body(form) + b"\n\n"
        whole = self._whole(form)
        if form == "responses":
            told: dict[str, Json] = {"type": "error", "sequence_number": number, "param": None}
            whole = {**told, "code": self.reason, "message": self.message, **whole}
        return b"event: error\ndata: " + orjson.dumps(whole) + b"\n\n"

    def _whole(self, form: Form) -> dict[str, Json]:
        mark: dict[str, Json] = {"reason": self.reason, "retryable": self.retryable}
        if self.retry_after_s is not None:
            mark["retry_after_s"] = round(self.retry_after_s, 3)
        kind = _TYPES.get(self.status, "api_error")
        error: dict[str, Json] = {"type": kind, "message": self.message, MARK: mark}
        if form == "messages":
            return {"type": "error", "error": error}
        return {"error": {**error, "param": None, "code": self.reason}}


def used_up(exhausted: Exhausted) -> Refusal:
    """A budget has nothing left."""
    whose = {"run": "this run", "user": "you", "tenant": "your organisation"}[exhausted.whose]
    text = f"The budget of {exhausted.limit} {exhausted.what} to models is used up for {whose}"
    if exhausted.what == "tokens":
        text = f"The budget of {exhausted.limit} tokens of models is used up for {whose}"
    status = HTTPStatus.TOO_MANY_REQUESTS
    return Refusal(status, "BUDGET_EXHAUSTED", text, exhausted.renewed_s)


def unavailable(text: str = "", retry_after_s: float | None = None) -> Refusal:
    """A server of models that cannot be reached, or breaks off."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "MODEL_UNAVAILABLE", text, retry_after_s)
