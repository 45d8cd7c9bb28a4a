"""Remembers what a token was verified to say.

Invariants: an entry is used only before its expiry and only while the keys that verified it are still
the ones in use; the token itself is not kept as a key, only its digest. What has expired goes when
something is added, as far as it is among the oldest: a value may hold its token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from hashlib import sha256
from typing import Final, Generic, TypeVar
from weakref import WeakSet

_T = TypeVar("_T")

_caches: Final[WeakSet[TokenCache[object]]] = WeakSet()


class TokenCache(Generic[_T]):
    """At most `size` results; the oldest goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._generation: Hashable = None
        self._entries: dict[bytes, tuple[float, _T]] = {}
        _caches.add(self)  # type: ignore[arg-type]  # only counted

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

    def put(
        self, digest: bytes, value: _T, expires_at_s: float, now_s: float, generation: Hashable
    ) -> None:
        self._renew(generation)
        while self._entries and (len(self._entries) >= self._size or self._oldest_s() <= now_s):
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = (expires_at_s, value)

    def _oldest_s(self) -> float:
        return next(iter(self._entries.values()))[0]

    def __len__(self) -> int:
        return len(self._entries)

    def _renew(self, generation: Hashable) -> None:
        if generation is not self._generation and generation != self._generation:
            self._entries.clear()
            self._generation = generation


def remembered() -> dict[str, int]:
    """How many tokens all caches of this process know, by the class of what they say."""
    kinds = (type(value) for cache in _caches for _, value in cache._entries.values())
    return dict(Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds))


def digest_of(token: str) -> bytes:
    """What stands for a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
