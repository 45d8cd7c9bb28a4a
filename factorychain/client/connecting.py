"""When to connect again, which close means what, and how much to send. No I/O but waiting."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from factorychain.client.events import Json
from factorychain.errors import (
    Capacity,
    ChainDegraded,
    ErrorCode,
    FactoryChainError,
    TokenExpired,
    TokenInvalid,
)

FIRST_S, MOST_S = 0.1, 10.0
HEALTHY_S = 10.0

BAD_TOKEN, TOO_MANY_CONNECTIONS, TOO_MUCH = 4001, 4009, 4010
_MALFORMED = (1002, 1003, 1007)
_NAME = re.compile(r"^[A-Z_]+: ")
"""What an error is called, before what it says."""

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or what gives one whenever a new one is needed."""


class Backoff:
    """Waits between attempts: doubling, with full jitter, and from the start after healthy time."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` answers a number from 0 to 1."""
        self._random = random
        self._ceiling_s = FIRST_S

    def next_s(self, connected_for_s: float, asked_ms: int | None) -> float:
        """The wait before the next attempt.

        `connected_for_s`: how long the connection before it was good, 0 if there was none.
        `asked_ms`: what the server asked for in `closing`.
        """
        if connected_for_s >= HEALTHY_S:
            self._ceiling_s = FIRST_S
        if asked_ms is not None:
            return asked_ms / 1000
        wait_s = self._ceiling_s * (0.5 + 0.5 * self._random())
        self._ceiling_s = min(2 * self._ceiling_s, MOST_S)
        return wait_s


def fatal(code: int, reason: str) -> FactoryChainError | None:
    """The error of a close after which connecting again is of no use; None if it is."""
    if code == BAD_TOKEN:
        if reason.startswith("TOKEN_EXPIRED"):
            return TokenExpired()
        return TokenInvalid(_NAME.sub("", reason) or "the token is not valid here")
    if code == TOO_MANY_CONNECTIONS:
        return Capacity(reason or "too many connections of this user", retry_after_s=5.0)
    if code == TOO_MUCH or code in _MALFORMED:
        return FactoryChainError(
            reason or f"the server closed with {code}",
            reason="PROTOCOL",
            code=ErrorCode.INVALID_ARGUMENT,
        )
    return None


def away(url: str, cause: str) -> ChainDegraded:
    """The error of a chain that cannot be reached."""
    return ChainDegraded("bridge", message=f"no connection to {url}: {cause}; is the chain up?")


class Pace:
    """Keeps to the frames a second that the server allows."""

    def __init__(self) -> None:
        self._per_s, self._burst = 10.0, 10.0
        self._left = self._burst
        self._at_s = time.monotonic()
        self._turn = asyncio.Lock()

    def allow(self, limits: Mapping[str, Json]) -> None:
        """The limits of the `ready` frame."""
        per_s, burst = limits.get("frames_per_s"), limits.get("frames_burst")
        if isinstance(per_s, int | float) and isinstance(burst, int | float) and per_s > 0:
            # A few are left for pongs and a token.
            self._per_s, burst = 0.9 * per_s, max(1.0, 0.8 * burst)
            self._left += burst - self._burst
            self._burst = burst

    async def wait(self) -> None:
        async with self._turn:
            now_s = time.monotonic()
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
            if self._left < 1:
                await asyncio.sleep((1 - self._left) / self._per_s)
            self._left -= 1


class Tokens:
    """The user's tokens, one after the other."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._refused = False

    @property
    def renewable(self) -> bool:
        """Whether there may be another token than the one before."""
        return callable(self._source)

    async def get(self) -> str:
        """The token to use now. What the source raises comes out."""
        found = self._source() if callable(self._source) else self._source
        token = found if isinstance(found, str) else await found
        if not token:
            raise TokenInvalid("there is no token")
        return token

    def accepted(self) -> None:
        """The server has taken the last one."""
        self._refused = False

    def try_another(self) -> bool:
        """The server has refused the last one: whether another is worth a try, which it is once."""
        again = self.renewable and not self._refused
        self._refused = True
        return again
