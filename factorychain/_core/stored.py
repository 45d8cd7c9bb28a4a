"""What storage hands out, and how it says no. Imports no NATS, so that domain modules may use it.

Invariant: a failed write says whether it may have happened. `WrongLastSequence` means that it has
not; `NatsUnavailable` with `sent` means that nobody knows until storage is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from factorychain.errors import ChainDegraded

RETRY_AFTER_S = 1.0
RETRY_WHEN_FULL_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream."""

    subject: str
    seq: int
    """Its stream sequence."""
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    previous_seq: int = 0
    """Stream sequence of the message before it on its subject; 0 where that is not known. Only a
    range tells it, for all of its messages but the first."""


@dataclass(frozen=True, slots=True)
class KvEntry:
    """What a bucket says about one key."""

    key: str
    value: bytes | None
    """None: the key does not exist, or no more."""
    revision: int
    """What the next `update` or `delete` has to name; 0 for a key of which nothing is stored."""


@dataclass(frozen=True, slots=True)
class StreamContents:
    """Which stream there is, and how much is in it."""

    created: str
    """When it was made: another value is another stream of the same name."""
    messages: int
    last_at_s: float
    """Unix seconds of what was stored last, also when that is gone."""
    first_seq: int = 0
    """Stream sequence of the first message; of an empty stream, of the next one."""
    last_seq: int = 0
    """Stream sequence of what was stored last."""
    size_bytes: int = 0
    max_age_s: float = 0.0
    """What is older goes; 0: nothing does."""


class WrongLastSequence(Exception):
    """A compare-and-set lost: somebody else has written since; nothing was stored.

    `actual` is the last sequence of the subject where the server tells it.
    """

    def __init__(self, subject: str, expected: int, actual: int | None) -> None:
        super().__init__(
            f"{subject}: expected last sequence {expected}, found {actual or 'another'}"
        )
        self.subject = subject
        self.expected = expected
        self.actual = actual


class NatsUnavailable(ChainDegraded):
    """NATS did not answer, or cannot serve now.

    `sent` says whether the request may have been carried out all the same.
    """

    def __init__(
        self,
        what: str,
        *,
        sent: bool,
        message: str | None = None,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        """`what` is for the log; `message` may be shown to users."""
        super().__init__("nats", retry_after_s=retry_after_s, message=message)
        self.what = what
        self.sent = sent
        self.add_note(what)


class StorageFull(NatsUnavailable):
    """NATS has no room: nothing was stored, and nothing will be until it has some."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            sent=False,
            message="storage has no room for more; try again later",
            retry_after_s=RETRY_WHEN_FULL_AFTER_S,
        )


class StreamMissing(NatsUnavailable):
    """A stream or bucket does not exist (yet): the service that owns it has not started."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"{stream} does not exist; the service that creates it has not started yet", sent=False
        )
        self.stream = stream


class StorageRefused(Exception):
    """The server refused a request for good: a wrong configuration or a missing permission."""

    def __init__(self, what: str, code: int, description: str) -> None:
        super().__init__(f"{what}: {description}" + (f" (JetStream error {code})" if code else ""))
        self.code = code
        self.description = description
