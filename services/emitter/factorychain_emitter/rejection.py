"""Why an event is not passed on."""

from __future__ import annotations


class Rejected(Exception):
    """An event that is not passed on; the run goes on without it.

    `reason` is upper snake case; the message says what is wrong and how to mend it, and quotes
    nothing of what the event says.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
