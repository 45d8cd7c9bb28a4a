"""The questions of one run: what is open, what was answered.

Pure. Invariant: a question has at most one answer, and none after it was closed; the same answer again is
known as such, another one is refused.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import orjson

from factorychain.errors import (
    EventRejected,
    InvalidField,
    RequestAnswered,
    RequestClosed,
    RequestNotFound,
)

OPEN_MAX: Final = 16
ASKED_MAX: Final = 1000
"""Questions of one run: their ids are kept, so that an answer that comes again is known."""

EXPIRED: Final = "EXPIRED"
WITHDRAWN: Final = "WITHDRAWN"
CANCELLED: Final = "CANCELLED"
_WHY: Final = {
    EXPIRED: "its time is over",
    WITHDRAWN: "the agent does not ask any more",
    CANCELLED: "its run is ending",
}


class Questions:
    """The questions of one run."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}  # schema by request
        self._answered: dict[str, bytes] = {}
        self._closed: dict[str, str] = {}

    @property
    def open(self) -> list[str]:
        """What waits for an answer, in the order in which it was asked."""
        return list(self._open)

    def ask(self, request: str, schema_json: str) -> None:
        """Something is asked.

        Raises:
            InvalidField: something was asked with this id before.
            EventRejected: the run asks too much.
        """
        if request in self._open or request in self._answered or request in self._closed:
            raise InvalidField("request", f"{request} was asked before; use an id of its own")
        asked = len(self._open) + len(self._answered) + len(self._closed)
        if len(self._open) >= OPEN_MAX or asked >= ASKED_MAX:
            raise EventRejected(
                "TOO_MANY_QUESTIONS",
                f"a run may ask {ASKED_MAX} questions, {OPEN_MAX} of them at once",
            )
        self._open[request] = schema_json

    def schema_of(self, request: str, value_json: str) -> str | None:
        """The schema that an answer must fit; None: it is the one that was given before.

        Raises:
            RequestNotFound: nothing was asked with this id.
            RequestAnswered: it has another answer.
            RequestClosed: nobody waits for it any more.
        """
        if request in self._open:
            return self._open[request]
        if request in self._answered:
            if self._answered[request] == _digest(value_json):
                return None
            raise RequestAnswered(request)
        if request in self._closed:
            raise RequestClosed(request, _WHY[self._closed[request]])
        raise RequestNotFound(self._open)

    def answer(self, request: str, value_json: str) -> bool:
        """An answer that fits; False if it is the one that was given before.

        Raises:
            As `schema_of`.
        """
        if self.schema_of(request, value_json) is None:
            return False
        del self._open[request]
        self._answered[request] = _digest(value_json)
        return True

    def close(self, request: str, why: str) -> bool:
        """Nobody waits for the answer any more; False if nobody did."""
        if self._open.pop(request, None) is None:
            return False
        self._closed[request] = why
        return True


def _digest(value_json: str) -> bytes:
    """Of the meaning: another spelling of the same JSON is the same answer."""
    form = orjson.dumps(orjson.loads(value_json), option=orjson.OPT_SORT_KEYS)
    return blake2b(form, digest_size=16).digest()
