"""Remembers what a token was verified to say.

Invariant: an entry is used only before its expiry and only while the keys that verified it are still
the ones in use; the token itself is not kept as a key, only its digest.
"""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import sha256
from typing import Generic, TypeVar

_T = TypeVar("_T")


class TokenCache(Generic[_T]):
    """At most `size` results; the oldest goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._generation: Hashable = None
        self._entries: dict[bytes, tuple[float, _T]] = {}

    def get(self, digest: bytes, now_s: float, generation: Hashable) -> _T | None:
        """What the token of this `digest_of` was verified to say."""
        self._renew(generation)
        found = self._entries.get(digest)
        if found is None:
            return None
        if found[0] <= now_s:
            del self._entries[digest]
            return None
        return found[1]

    def put(self, digest: bytes, value: _T, expires_at_s: float, generation: Hashable) -> None:
        self._renew(generation)
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = (expires_at_s, value)

    def __len__(self) -> int:
        return len(self._entries)

    def _renew(self, generation: Hashable) -> None:
        if generation is not self._generation and generation != self._generation:
            self._entries.clear()
            self._generation = generation


def digest_of(token: str) -> bytes:
    """What stands for a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
