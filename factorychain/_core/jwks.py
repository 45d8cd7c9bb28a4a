"""Public keys that tokens are verified with: from a file, or from an identity provider's URL.

Invariant: a key set is replaced as a whole or not at all; a document that cannot be used leaves the
keys before it in force. A symmetric key in such a document is never used: it would be public.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from factorychain._core.component import detached
from factorychain._core.keys import KeyUnusable
from factorychain._core.logging import get_logger
from factorychain.errors import ChainDegraded

if TYPE_CHECKING:
    import aiohttp

log = get_logger(__name__)

_MAX_BYTES = 1024 * 1024
_FETCH_TIMEOUT_S = 5.0
_MAX_AGE_S = 300.0
_MIN_REFETCH_S = 10.0

# RFC 7518 section 3.1 and RFC 8037, asymmetric algorithms only.
_ALGORITHMS = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA"}),
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the algorithms that it may be used with."""

    kid: str
    key: PublicKeyTypes
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys of one document; equal only to itself, so that a change of keys is seen."""

    keys: Mapping[str, VerificationKey]

    def find(self, kid: str | None) -> VerificationKey | None:
        """The key named `kid`; without a name the only one there is."""
        if kid is None:
            return next(iter(self.keys.values())) if len(self.keys) == 1 else None
        return self.keys.get(kid)


class KeySource(Protocol):
    """Where the keys that are in force come from, at once."""

    def current(self) -> KeySet: ...


def parse_jwks(document: bytes) -> KeySet:
    """The usable signature keys of a JWK Set.

    Raises:
        ValueError: no JWK Set, or nothing usable in it.
    """
    try:
        listed = orjson.loads(document)["keys"]
        found = [_usable(each) for each in listed]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError("is no JWK Set (RFC 7517)") from None
    keys = {each.kid: each for each in found if each is not None}
    if not keys:
        raise ValueError("has no asymmetric signature key")
    return KeySet(keys)


def _usable(jwk: dict[str, Any]) -> VerificationKey | None:
    allowed = _ALGORITHMS.get(jwk["kty"] if jwk["kty"] == "RSA" else jwk.get("crv", ""))
    if allowed is None or jwk.get("use", "sig") != "sig":
        return None
    if jwk.get("alg"):
        allowed &= {jwk["alg"]}
    # Never the private part, whatever the document holds.
    public = {
        name: value
        for name, value in jwk.items()
        if name not in {"d", "p", "q", "dp", "dq", "qi", "oth"}
    }
    try:
        key = PyJWK(public, algorithm=min(allowed)).key if allowed else None
    except PyJWTError:
        return None
    return None if key is None else VerificationKey(str(jwk.get("kid", "")), key, allowed)


class JwksFile:
    """A JWK Set in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._keys: KeySet | None = None

    def current(self) -> KeySet:
        """The keys that are in force.

        Raises:
            KeyUnusable: the file cannot be used, and never could since the start.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if self._keys is None or stamp != self._stamp:
                self._keys = parse_jwks(self._path.read_bytes())
                self._stamp = stamp
        except (OSError, ValueError) as error:
            if self._keys is None:
                raise KeyUnusable(f"{self._path}: {error}") from error
            self._report(error)
        assert self._keys is not None
        return self._keys

    def _report(self, error: Exception) -> None:
        if self._stamp != (0,):  # once per change
            self._stamp = (0,)
            log.error("the file of keys cannot be used", path=str(self._path), cause=str(error))


class JwksUrl:
    """A JWK Set behind a URL: fetched when needed, again when it is old or lacks a key.

    However many unknown keys tokens name, the provider is asked once in `min_refetch_s`.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age_s: float = _MAX_AGE_S,
        min_refetch_s: float = _MIN_REFETCH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._max_age_s = max_age_s
        self._min_refetch_s = min_refetch_s
        self._clock = clock
        self._keys: KeySet | None = None
        self._document = b""
        self._fetched_at_s = float("-inf")
        self._tried_at_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def cached(self) -> KeySet | None:
        """The keys that are known now; may be older than they should be."""
        return self._keys

    @property
    def is_fresh(self) -> bool:
        return self._clock() - self._fetched_at_s < self._max_age_s

    async def start(self) -> None:
        """Fetch once, so that the first user need not wait; a failure is only logged."""
        await self._refetch()

    async def stop(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def with_key(self, kid: str | None) -> KeySet:
        """The key set, fetched again if it is old or has no key `kid`.

        Raises:
            ChainDegraded: the provider has never answered.
        """
        if not self._satisfies(kid):
            due = self._clock() - self._tried_at_s >= self._min_refetch_s
            if self._fetching is None and due:
                # In a context of its own: the session that it may open is everybody's.
                self._fetching = detached(self._refetch(), name="fetch of keys")
            if self._fetching is not None:
                # Shielded: many wait for it, and who leaves must not take it from the others.
                await asyncio.shield(self._fetching)
        if self._keys is None:
            raise ChainDegraded("identity provider", retry_after_s=self._min_refetch_s)
        return self._keys

    def _satisfies(self, kid: str | None) -> bool:
        return self._keys is not None and self.is_fresh and self._keys.find(kid) is not None

    async def _refetch(self) -> None:
        self._tried_at_s = self._clock()
        try:
            await self._fetch()
        finally:
            self._fetching = None

    async def _fetch(self) -> None:
        import aiohttp  # who reads keys from a file starts sooner without it

        try:
            document = await self._get()
            if document != self._document or self._keys is None:
                self._keys, self._document = parse_jwks(document), document
            self._fetched_at_s = self._clock()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.error(
                "the keys could not be fetched",
                url=self._url,
                cause=f"{type(error).__name__}: {error}",
            )

    async def _get(self) -> bytes:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
            )
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"answered {response.status}")
            document = await response.content.read(_MAX_BYTES + 1)
            while len(document) <= _MAX_BYTES and (more := await response.content.read(_MAX_BYTES)):
                document += more
        if len(document) > _MAX_BYTES:
            raise ValueError(f"answered with more than {_MAX_BYTES} bytes")
        return document
