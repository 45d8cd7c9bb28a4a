"""Where a connection to NATS that was lost is made again, and when.

Invariant: a server that refuses, or takes connections and drops them at once, is asked less and less
often. Pauses begin anew only after a connection that has held for a while, and each is spread out so that
connections lost together come back apart. Another server is asked at once: its neighbour's illness is
not its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nats.aio.client import Server

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 1.0
HEALTHY_AFTER_S: Final = 5.0


class Reconnecting:
    """One connection's `reconnect_to_server_handler`."""

    def __init__(
        self,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock, self._uniform = clock, uniform
        self._tries = 0
        self._up_since_s = clock()

    def connected(self) -> None:
        """There is a connection."""
        self._up_since_s = self._clock()

    def lost(self) -> None:
        """It has ended."""
        if self._clock() - self._up_since_s >= HEALTHY_AFTER_S:
            self._tries = 0

    def __call__(
        self, servers: Sequence[Server], _info: Mapping[str, object]
    ) -> tuple[Server, float]:
        """The server to try next, and seconds to wait before; the client has shuffled `servers`."""
        rounds, self._tries = self._tries // len(servers), self._tries + 1
        next_one = min(servers, key=lambda each: each.reconnects)
        if rounds == 0:
            return next_one, 0.0
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(rounds - 1, 10))
        return next_one, self._uniform(longest_s / 2, longest_s)
