"""What a session decides, and the limits by which it does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from factorychain_bridge.edge.frames import Auth, Operation


class CloseCode(IntEnum):
    """Why the server closes a socket."""

    MALFORMED = 1002
    RESTARTING = 1012
    BAD_TOKEN = 4001
    NO_AUTH = 4002
    TOO_SLOW = 4008
    TOO_MANY_CONNECTIONS = 4009
    TOO_MUCH = 4010


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one socket may do. The names of the fields are those in the `ready` frame."""

    frame_max_bytes: int = 327_680
    frame_max_bytes_unauthenticated: int = 16_384
    frames_per_s: float = 10.0
    frames_burst: int = 50
    subscriptions: int = 64
    sockets_per_user: int = 16
    queue_bytes: int = 1_048_576
    operations_in_hand: int = 32
    auth_timeout_s: float = 10.0
    heartbeat_s: float = 25.0

    def shown(self) -> dict[str, object]:
        """The `limits` of the `ready` frame."""
        return {
            "frame_max_bytes": self.frame_max_bytes,
            "frames_per_s": self.frames_per_s,
            "frames_burst": self.frames_burst,
            "subscriptions": self.subscriptions,
            "sockets_per_user": self.sockets_per_user,
            "queue_bytes": self.queue_bytes,
            "operations_in_hand": self.operations_in_hand,
        }


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket. `at_once`: what is queued is not sent any more."""

    code: CloseCode
    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Verify:
    """Verify a token, then say `verified` or `unverified`."""

    auth: Auth


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out an operation, then say `succeeded` or `failed`."""

    operation: Operation


Output = Send | Close | Verify | Do
