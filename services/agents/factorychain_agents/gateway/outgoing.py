"""Connections to the outside: one pool for all runs, and the operator's proxies.

Invariant: nothing of one request is there for the next but an open connection that was read to its end: no
cookies, and no credentials from files of this machine's user (`.netrc`).
"""

from __future__ import annotations

from functools import lru_cache
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL


def session() -> aiohttp.ClientSession:
    """To be closed when the gateway stops."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        # All runs share it: what a server sets for one must not be sent by another.
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


@lru_cache(maxsize=256)
def proxy_of(base: URL) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the service name for a server; None: none."""
    if proxy_bypass(f"{base.host}:{base.port}"):
        return None
    return getproxies_environment().get(base.scheme)
