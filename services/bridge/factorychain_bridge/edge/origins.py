"""Which browsers may connect.

Invariant: an Origin is compared exactly, never by prefix or suffix. A request without one comes from no
browser page (RFC 6455, 10.2), so there is no other site to protect its user from: it is let through,
and its token decides. Tokens are never in cookies, so this is a second fence, not the first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit


class Origins:
    """The origins that are allowed: those listed, in development also loopback ones."""

    def __init__(self, allowed: Iterable[str], *, loopback: bool) -> None:
        self._allowed = frozenset(allowed)
        self._loopback = loopback

    def allow(self, origin: str | None) -> bool:
        """Whether a request with this Origin header (None: without one) may go on."""
        if origin is None or origin in self._allowed:
            return True
        return self._loopback and is_loopback(origin)


def is_loopback(origin: str) -> bool:
    """Whether an origin is a page of this very machine."""
    try:
        parts = urlsplit(origin)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if (
        parts.scheme not in ("http", "https")
        or not host
        or origin != f"{parts.scheme}://{parts.netloc}"
    ):
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
