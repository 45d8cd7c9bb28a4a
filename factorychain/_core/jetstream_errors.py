"""What the errors of the JetStream API mean.

Invariant: an error that passes by itself, or when somebody mends the server, is a `NatsUnavailable`;
`StorageRefused` is what no waiting mends.

The codes: https://github.com/nats-io/nats-server/blob/main/server/errors.json
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from factorychain._core.stored import (
    NatsUnavailable,
    StorageFull,
    StorageRefused,
    StreamMissing,
)

NO_MESSAGE: Final = 10037
STREAM_NOT_FOUND: Final = 10059
STREAM_EXISTS: Final = 10058
WRONG_LAST: Final = frozenset({10071, 10164})

# Of the server's 5xx errors those that no waiting mends: replicas without a cluster, and the like.
_NEVER: Final = frozenset({10074, 10036})
# Limits of the account, of the server (in all, and of memory), and of its storage.
_NO_ROOM: Final = frozenset({10002, 10023, 10028, 10047})
_NOT_STORED: Final = 10077
_NO_ROOM_TEXTS: Final = ("maximum bytes", "no space left")


def error_code(answer: Mapping[str, Any]) -> int:
    """The server's code of the error in an answer; 0: there is none."""
    return int(answer["error"].get("err_code", 0)) if "error" in answer else 0


def raise_error(stream: str, answer: Mapping[str, Any]) -> None:
    """Raise the error in an answer, if there is one, as `refusal` has it."""
    if "error" in answer:
        raise refusal(stream, answer["error"])


def refusal(stream: str, error: Mapping[str, Any]) -> Exception:
    """What to raise for an error about a stream."""
    code, description = int(error.get("err_code", 0)), str(error.get("description", ""))
    if code == STREAM_NOT_FOUND:
        return StreamMissing(stream)
    if code in _NO_ROOM or (code == _NOT_STORED and description.startswith(_NO_ROOM_TEXTS)):
        return StorageFull(f"{stream}: {description} (JetStream error {code})")
    if error.get("code", 0) >= 500 and code not in _NEVER:  # no leader, no quorum: may pass
        return NatsUnavailable(f"{stream}: {description}", sent=False)
    return StorageRefused(stream, code, description)


def trailing_int(description: str) -> int | None:
    """The number at the end of a description."""
    tail = description.rsplit(":", 1)[-1].strip()
    return int(tail) if tail.isdigit() else None
