"""User tokens: JWTs of the operator's identity provider, or of this chain's own development secret.

Invariant: the algorithm is decided by the key, never by the token. HMAC verifies with the shared secret
only, public keys with the algorithms of their type only; what is not a user token (a transaction
token, an id token for somebody else) is refused however well it is signed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import orjson
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from factorychain._core import claims as check
from factorychain._core.ids import DEFAULT_TENANT, Principal
from factorychain._core.jwks import JwksFile, JwksUrl, KeySet, KeySource
from factorychain._core.keys import KeyUnusable, read_secret
from factorychain._core.token_cache import TokenCache, digest_of
from factorychain.errors import TokenInvalid

if TYPE_CHECKING:
    from factorychain._core.settings import UserTokenSettings

HMAC = "HS256"
ACT_AS = "act_as"

# RFC 7519 section 5.1 (optional) and RFC 9068.
_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_ASYMMETRIC = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
_TOKEN_MAX_CHARS = 8192
_CACHE_SIZE = 8192

_jws = PyJWS(algorithms=[HMAC, *_ASYMMETRIC])


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """Who a verified token speaks for."""

    principal: Principal
    expires_at_s: float
    """Unix seconds."""
    claims: Mapping[str, Any] = field(repr=False, hash=False)
    """All claims; read-only."""
    actor: str | None = None
    """The backend that acts for the user, if one does."""


class UserVerifier:
    """Verifies user tokens, each once as long as the keys stay. A component: `start` fetches keys."""

    name = "user tokens"

    def __init__(
        self,
        *,
        audience: str,
        issuer: str = "",
        tenant_claim: str = "tenant",
        leeway_s: float = 0,
        secret: bytes | None = None,
        jwks: KeySource | JwksUrl | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if secret is None and jwks is None:
            raise KeyUnusable(
                "nothing to verify user tokens with: set FACTORYCHAIN_USER_JWKS_URL, "
                "FACTORYCHAIN_USER_JWKS_FILE or FACTORYCHAIN_USER_SECRET_FILE"
            )
        if not audience:
            raise KeyUnusable(
                "FACTORYCHAIN_USER_AUDIENCE is empty: tokens for anybody would be accepted"
            )
        self._audience = audience
        self._issuer = issuer
        self._tenant_claim = tenant_claim
        self._leeway_s = leeway_s
        self._secret = secret
        self._jwks = jwks
        self._clock = clock
        self._cache: TokenCache[VerifiedUser] = TokenCache(_CACHE_SIZE)

    @classmethod
    def from_settings(cls, settings: UserTokenSettings) -> Self:
        """A verifier with the configured keys.

        Raises:
            KeyUnusable: they cannot be used.
        """
        jwks: KeySource | JwksUrl | None = None
        if settings.user_jwks_url:
            jwks = JwksUrl(str(settings.user_jwks_url))
        elif settings.user_jwks_file:
            jwks = JwksFile(settings.user_jwks_file)
            jwks.current()
        return cls(
            audience=settings.user_audience,
            issuer=settings.user_issuer or "",
            tenant_claim=settings.tenant_claim,
            leeway_s=settings.user_token_leeway_s,
            secret=read_secret(settings.user_secret_file) if settings.user_secret_file else None,
            jwks=jwks,
        )

    @property
    def healthy(self) -> bool:
        return True

    async def start(self) -> None:
        if isinstance(self._jwks, JwksUrl):
            await self._jwks.start()

    async def stop(self) -> None:
        if isinstance(self._jwks, JwksUrl):
            await self._jwks.stop()

    def verify_cached(self, token: str) -> VerifiedUser | None:
        """Whom the token speaks for if that is known already; None: ask `verify`."""
        now_s = self._clock() - self._leeway_s
        return self._cache.get(digest_of(token), now_s, self._generation())

    async def verify(self, token: str) -> VerifiedUser:
        """Whom the token speaks for.

        Raises:
            TokenExpired: it was valid once.
            TokenInvalid: anything else is wrong with it.
            ChainDegraded: the identity provider has never answered.
        """
        known = self.verify_cached(token)
        if known is not None:
            return known
        header = _header(token)
        claims = _object(_signed_payload(token, header, await self._key(header)))
        user = self._user(claims)
        now_s = self._clock() - self._leeway_s
        self._cache.put(digest_of(token), user, user.expires_at_s, now_s, self._generation())
        return user

    async def _key(self, header: Mapping[str, Any]) -> Any:
        """The key for the token's algorithm, which `_signed_payload` holds it to."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == HMAC and self._secret is not None:
            return self._secret
        if algorithm not in _ASYMMETRIC or self._jwks is None:
            raise TokenInvalid("the token is signed in a way that is not accepted here")
        if kid is not None and not isinstance(kid, str):
            raise TokenInvalid("the token's kid is no text")
        key = (await self._keys(kid)).find(kid)
        if key is None or algorithm not in key.algorithms:
            raise TokenInvalid("the token is signed with a key that is not known here")
        return key.key

    async def _keys(self, kid: str | None) -> KeySet:
        assert self._jwks is not None
        if isinstance(self._jwks, JwksUrl):
            return await self._jwks.with_key(kid)
        return self._jwks.current()

    def _generation(self) -> KeySet | None:
        if self._jwks is None:
            return None
        return self._jwks.cached if isinstance(self._jwks, JwksUrl) else self._jwks.current()

    def _user(self, claims: dict[str, Any]) -> VerifiedUser:
        check.require_audience(claims, self._audience)
        if self._issuer and claims.get("iss") != self._issuer:
            raise TokenInvalid("the token is of another issuer")
        expires_at_s = check.expiry(claims, self._clock(), self._leeway_s)
        has_tenant = self._tenant_claim in claims
        tenant = check.text(claims, self._tenant_claim) if has_tenant else DEFAULT_TENANT
        principal = check.principal(claims, tenant)
        return VerifiedUser(principal, expires_at_s, MappingProxyType(claims), _actor(claims))


def mint_user_token(
    secret: bytes,
    principal: Principal,
    *,
    ttl_s: float,
    audience: str,
    issuer: str = "",
    tenant_claim: str = "tenant",
    now_s: float | None = None,
    further: Mapping[str, str] | None = None,
) -> str:
    """A token of the shared secret: for development and tests, where there is no identity provider.

    `further` claims may say what they like, but not who the token is of.
    """
    now = time.time() if now_s is None else now_s
    claims: dict[str, Any] = {
        **(further or {}),
        "sub": principal.user,
        tenant_claim: principal.tenant,
        "aud": audience,
        "iat": int(now),
        "exp": int(now + ttl_s),
    }
    if issuer:
        claims["iss"] = issuer
    return _jws.encode(orjson.dumps(claims), secret, algorithm=HMAC, headers={"typ": "JWT"})


def _header(token: str) -> dict[str, Any]:
    if not 0 < len(token) <= _TOKEN_MAX_CHARS or not token.isascii():
        raise TokenInvalid(
            f"a token has 1 to {_TOKEN_MAX_CHARS} characters of base64url and two dots"
        )
    try:
        header: dict[str, Any] = _jws.get_unverified_header(token)
    except PyJWTError:
        raise TokenInvalid("the token is no signed JWT") from None
    typ = header.get("typ", "")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise TokenInvalid("the token is of another kind")
    if "crit" in header or "b64" in header:
        raise TokenInvalid("the token needs an extension that is not understood here")
    return header


def _signed_payload(token: str, header: Mapping[str, Any], key: Any) -> bytes:
    try:
        # One algorithm, which `_key` has matched with the key.
        payload: bytes = _jws.decode_complete(token, key, algorithms=[header["alg"]])["payload"]
    except PyJWTError:
        raise TokenInvalid("the token's signature is wrong") from None
    return payload


def _object(payload: bytes) -> dict[str, Any]:
    try:
        claims = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise TokenInvalid("the token holds no JSON") from None
    if not isinstance(claims, dict):
        raise TokenInvalid("the token holds no claims")
    return claims


def _actor(claims: Mapping[str, Any]) -> str | None:
    """RFC 8693 section 4.1: `sub` is the user, `act` the one who acts for them."""
    act = claims.get("act")
    if act is None:
        return None
    if not isinstance(act, dict) or ACT_AS not in check.scopes(claims):
        raise TokenInvalid(f"a token with an act claim needs the scope {ACT_AS}")
    return check.text(act, "sub")
