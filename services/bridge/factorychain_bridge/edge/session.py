"""The protocol of one socket, without the socket: frames and answers in, outputs out.

Invariants: nothing but `auth` does anything before a token was verified, and frames that come while
it is being verified wait for the verdict; the principal never changes on a socket; the number of
operations in hand is bounded; after a `Close` nothing comes out any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, auto

from factorychain._core.ids import Principal
from factorychain.errors import (
    ErrorCode,
    FactoryChainError,
    TokenExpired,
    TokenInvalid,
)
from factorychain_bridge.edge import answers
from factorychain_bridge.edge.frames import Auth, BadFrame, Operation, Ping, parse
from factorychain_bridge.edge.limits import TokenBucket
from factorychain_bridge.edge.outbox import Pong
from factorychain_bridge.edge.outputs import (
    Close,
    CloseCode,
    Do,
    Output,
    Send,
    SessionLimits,
    Verify,
)
from factorychain_bridge.items import StopReason

EXPIRY_NOTICE_S = 30.0
_STOPS: Mapping[StopReason, tuple[CloseCode, str]] = {
    StopReason.PRINCIPAL_MISMATCH: (CloseCode.BAD_TOKEN, ""),
    StopReason.REPLAY_FAILED: (CloseCode.RESTARTING, ": connect again, resume from your last seq"),
    StopReason.SLOW_CONSUMER: (CloseCode.TOO_SLOW, ": read faster, resume from your last seq"),
}
_REASON_MAX_BYTES = 123  # RFC 6455, 5.5: a control frame has at most 125 bytes, two are the code


class _Phase(Enum):
    NEW = auto()
    VERIFYING = auto()
    OPEN = auto()
    CLOSED = auto()


class Session:
    """One socket's state. `wall` and `monotonic` are clocks in seconds; `wall` is Unix time."""

    def __init__(
        self, limits: SessionLimits, wall: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self.limits = limits
        self.principal: Principal | None = None
        self.in_hand = 0
        self._wall = wall
        self._monotonic = monotonic
        self._phase = _Phase.NEW
        self._bucket = TokenBucket(limits.frames_per_s, limits.frames_burst, monotonic)
        self._auth_until_s = monotonic() + limits.auth_timeout_s
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._token = ""
        self._expires_at_s = 0.0
        self._warned = False

    @property
    def closed(self) -> bool:
        return self._phase is _Phase.CLOSED

    @property
    def token(self) -> str:
        """The user's own token, as it was verified last."""
        return self._token

    # --- frames --------------------------------------------------------------------------------

    def receive(self, text: str) -> list[Output]:
        """A text frame has come."""
        if self.closed:
            return []
        if not self._bucket.take():
            return self._close(CloseCode.TOO_MUCH, _rate_text(self.limits))
        if self._phase is not _Phase.OPEN and self._is_too_big_for_now(text):
            return self.too_big()
        if self._phase is _Phase.VERIFYING:
            return self._wait(text)
        return self._handle(text)

    def ping(self, payload: bytes) -> list[Output]:
        """A WebSocket ping has come. It counts as a frame, and its answer waits in the same queue."""
        return self.pong() or ([] if self.closed else [Send(Pong(payload))])

    def pong(self) -> list[Output]:
        """A WebSocket pong has come. It counts as a frame."""
        if self.closed or self._bucket.take():
            return []
        return self._close(CloseCode.TOO_MUCH, _rate_text(self.limits))

    def binary(self) -> list[Output]:
        """A binary frame has come."""
        return self._close(CloseCode.MALFORMED, "only text frames, one JSON object each")

    def too_big(self) -> list[Output]:
        """A frame over the limit has come."""
        limits = self.limits
        most = limits.frame_max_bytes
        if self._phase is not _Phase.OPEN:
            most = limits.frame_max_bytes_unauthenticated
        return self._close(CloseCode.TOO_MUCH, f"a frame may have {most} bytes here")

    def _is_too_big_for_now(self, text: str) -> bool:
        # Cheap first: characters are at least as many bytes.
        most = self.limits.frame_max_bytes_unauthenticated
        return len(text) > most or len(text.encode()) > most

    def _wait(self, text: str) -> list[Output]:
        self._waiting.append(text)
        self._waiting_chars += len(text)
        too_many = len(self._waiting) > self.limits.operations_in_hand
        if too_many or self._waiting_chars > self.limits.frame_max_bytes:
            return self._close(CloseCode.TOO_MUCH, "too much was sent before the answer to auth")
        return []

    def _handle(self, text: str) -> list[Output]:
        try:
            operation = parse(text)
        except BadFrame as bad:
            return [Send(answers.failed(bad.id, answers.error(bad.error)))]
        if isinstance(operation, Auth):
            if self._phase is _Phase.NEW:
                self._phase = _Phase.VERIFYING
            return [Verify(operation)]
        if self._phase is not _Phase.OPEN:
            return [Send(_failed(operation, TokenInvalid("the first frame must be auth")))]
        if isinstance(operation, Ping):
            return [Send(answers.reply(operation.id, {}))]
        if self.in_hand >= self.limits.operations_in_hand:
            return [Send(_failed(operation, _too_many(self.limits)))]
        self.in_hand += 1
        return [Do(operation)]

    # --- answers -------------------------------------------------------------------------------

    def verified(self, auth: Auth, principal: Principal, expires_at_s: float) -> list[Output]:
        """The token is good, and says whose it is."""
        if self.closed:
            return []
        if self.principal is not None and self.principal != principal:
            return self._close(CloseCode.BAD_TOKEN, "TOKEN_INVALID: this token is another user's")
        if expires_at_s <= self._wall():
            return self.unverified(auth, TokenExpired())
        self.principal = principal
        self._token, self._expires_at_s, self._warned = auth.token, expires_at_s, False
        self._phase = _Phase.OPEN
        waiting, self._waiting, self._waiting_chars = self._waiting, [], 0
        found: list[Output] = [Send(self._ready(auth.id, principal))]
        for text in waiting:
            found += self._handle(text)
        return found

    def unverified(self, auth: Auth, error: FactoryChainError) -> list[Output]:
        """The token is not good, or that could not be found out now."""
        if self.closed:
            return []
        if error.code is ErrorCode.UNAUTHENTICATED:
            return self._close(CloseCode.BAD_TOKEN, f"{error.reason}: {error.message}")
        answer = Send(answers.failed(auth.id, answers.error(error)))
        if self._phase is _Phase.OPEN:
            return [answer]  # the token before still holds
        return [answer, *self._close(CloseCode.RESTARTING, error.reason)]

    def succeeded(self, operation: Operation, result: Mapping[str, object]) -> list[Output]:
        """An operation that was to be done has a result."""
        self.in_hand -= 1
        return [] if self.closed else [Send(answers.reply(operation.id, result))]

    def failed(self, operation: Operation, error: FactoryChainError) -> list[Output]:
        """An operation that was to be done has failed."""
        self.in_hand -= 1
        return [] if self.closed else [Send(_failed(operation, error))]

    def _ready(self, id: str | None, principal: Principal) -> bytes:
        expires_at = datetime.fromtimestamp(self._expires_at_s, UTC)
        return answers.ready(
            id,
            tenant=principal.tenant,
            user=principal.user,
            expires_at=expires_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            heartbeat_s=self.limits.heartbeat_s,
            limits=self.limits.shown(),
        )

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> list[Output]:
        """Time has passed."""
        if self._phase in (_Phase.NEW, _Phase.VERIFYING):
            if self._monotonic() < self._auth_until_s:
                return []
            return self._close(CloseCode.NO_AUTH, "no auth in time")
        if self._phase is not _Phase.OPEN:
            return []
        left_s = self._expires_at_s - self._wall()
        if left_s <= 0:
            return self._close(CloseCode.BAD_TOKEN, "TOKEN_EXPIRED: the token has expired")
        if left_s <= EXPIRY_NOTICE_S and not self._warned:
            self._warned = True
            return [Send(answers.token_expiring(round(left_s)))]
        return []

    def tick_in_s(self) -> float | None:
        """When `tick` has something to do next, from now; None when never."""
        if self._phase in (_Phase.NEW, _Phase.VERIFYING):
            return max(0.0, self._auth_until_s - self._monotonic())
        if self._phase is not _Phase.OPEN:
            return None
        left_s = self._expires_at_s - self._wall()
        return max(0.0, left_s if self._warned else left_s - EXPIRY_NOTICE_S)

    # --- endings -------------------------------------------------------------------------------

    def stopped(self, why: StopReason) -> list[Output]:
        """A thread that the socket follows can't be delivered any more."""
        code, advice = _STOPS[why]
        return self._close(code, f"{why}{advice}", at_once=True)

    def too_many_connections(self) -> list[Output]:
        """The user has as many sockets as are allowed."""
        most = self.limits.sockets_per_user
        return self._close(CloseCode.TOO_MANY_CONNECTIONS, f"{most} sockets a user are allowed")

    def draining(self, reconnect_after_ms: int) -> list[Output]:
        """The server is about to stop."""
        return [] if self.closed else [Send(answers.closing("drain", reconnect_after_ms))]

    def drained(self) -> list[Output]:
        """The socket's turn to go has come."""
        return self._close(CloseCode.RESTARTING, "drain")

    def lost(self) -> None:
        """The socket is gone."""
        self._phase = _Phase.CLOSED

    def _close(self, code: CloseCode, reason: str, *, at_once: bool = False) -> list[Output]:
        if self.closed:
            return []
        self._phase = _Phase.CLOSED
        self._waiting.clear()
        cut = reason.encode()[:_REASON_MAX_BYTES].decode(errors="ignore")
        return [Close(code, cut, at_once)]


def _failed(operation: Operation | Ping, error: FactoryChainError) -> bytes:
    return answers.failed(operation.id, answers.error(error))


def _rate_text(limits: SessionLimits) -> str:
    return f"{limits.frames_per_s:g} frames a second, {limits.frames_burst} at once"


def _too_many(limits: SessionLimits) -> FactoryChainError:
    return FactoryChainError(
        f"{limits.operations_in_hand} operations are in hand on this socket; wait for a reply",
        reason="OPERATIONS_LIMIT",
        code=ErrorCode.RESOURCE_EXHAUSTED,
        retry_after_s=0.1,
    )
