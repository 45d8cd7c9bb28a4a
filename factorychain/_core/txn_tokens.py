"""Transaction tokens: who runs what, in words that every layer can verify (draft-ietf-oauth-transaction-tokens).

Invariant: the engine alone signs; a layer believes nothing about user, thread and run but what a
verified token says, and a token of one scope is refused where the other is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from factorychain._core import claims as check
from factorychain._core import jws
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal, parse_run_id, parse_thread_id
from factorychain._core.jwks import JwksFile, KeySet, KeySource
from factorychain._core.keys import KeyUnusable, TxnKey
from factorychain._core.token_cache import TokenCache, digest_of
from factorychain.errors import InvalidField, RunNotFound, TokenExpired, TokenInvalid

if TYPE_CHECKING:
    from factorychain._core.settings import TxnTokenSettings

TYP = "txntoken+jwt"
GRACE_S = 60.0
"""How long a token outlives its run's deadline, so that the ending can be written."""

_WORKLOAD = "engine"
_TOKEN_MAX_CHARS = 8192
_CACHE_SIZE = 4096
_LEEWAY_S = 5.0
_RUN_SCOPES = frozenset({Scope.RUN})


class TxnSigner:
    """Makes transaction tokens; only the engine has one."""

    def __init__(
        self, key: TxnKey, trust_domain: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._trust_domain = trust_domain
        self._clock = clock

    @classmethod
    def from_settings(cls, settings: TxnTokenSettings, key_file: Path) -> Self:
        """A signer with the key in `key_file`.

        Raises:
            KeyUnusable: there is no usable key.
        """
        return cls(TxnKey.from_file(key_file), settings.trust_domain)

    @property
    def key(self) -> TxnKey:
        return self._key

    def issue(
        self,
        *,
        principal: Principal,
        thread: str,
        run: str,
        agent: str,
        attempt: int,
        scope: Scope,
        base: int,
        base_seq: int,
        base_epoch: int,
        deadline_s: float,
        limits: Mapping[str, int],
        request_context: Mapping[str, str] | None = None,
    ) -> UserExecutionContext:
        """The context of one attempt of a run, with its token.

        The token lives until the deadline and a minute more; a run whose deadline moves gets another.
        """
        now_s = self._clock()
        context = UserExecutionContext(
            principal=principal,
            thread=thread,
            run=run,
            agent=agent,
            attempt=attempt,
            scope=scope,
            base=base,
            base_seq=base_seq,
            base_epoch=base_epoch,
            deadline_s=deadline_s,
            expires_at_s=int(max(deadline_s, now_s) + GRACE_S),
            limits=limits,
            token="",
        )
        return self._signed(context, request_context or {}, now_s)

    def mint(
        self, context: UserExecutionContext, *, request_context: Mapping[str, str] | None = None
    ) -> str:
        """A token that says what `context` says."""
        return self._signed(context, request_context or {}, self._clock()).token

    def _signed(
        self, context: UserExecutionContext, request_context: Mapping[str, str], now_s: float
    ) -> UserExecutionContext:
        claims = {
            "iat": int(now_s),
            "exp": int(context.expires_at_s),
            "aud": self._trust_domain,
            "txn": context.run,
            "sub": context.principal.user,
            "scope": context.scope.value,
            "req_wl": _WORKLOAD,
            "tctx": {
                "tenant": context.principal.tenant,
                "thread": context.thread,
                "agent": context.agent,
                "attempt": context.attempt,
                "limits": dict(context.limits),
                "base": context.base,
                "base_seq": context.base_seq,
                "base_epoch": context.base_epoch,
                "deadline": context.deadline_s,
            },
            "rctx": dict(request_context),
        }
        return replace(
            context, token=jws.sign(claims, self._key.private, typ=TYP, kid=self._key.kid)
        )


class TxnVerifier:
    """Verifies transaction tokens, each once."""

    def __init__(
        self, jwks: KeySource, trust_domain: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._jwks = jwks
        self._trust_domain = trust_domain
        self._clock = clock
        self._cache: TokenCache[UserExecutionContext] = TokenCache(_CACHE_SIZE)

    @classmethod
    def from_settings(cls, settings: TxnTokenSettings) -> Self:
        """A verifier with the keys in `txn_jwks_file`.

        Raises:
            KeyUnusable: there are none.
        """
        if settings.txn_jwks_file is None:
            raise KeyUnusable(
                "FACTORYCHAIN_TXN_JWKS_FILE is not set; it names the engine's public keys"
            )
        jwks = JwksFile(settings.txn_jwks_file)
        jwks.current()
        return cls(jwks, settings.trust_domain)

    def verify(
        self, token: str, scopes: Collection[Scope | str] = _RUN_SCOPES
    ) -> UserExecutionContext:
        """What the token says; costs a signature check the first time, microseconds after.

        A stream that outlives its opening has to look at `expires_at_s` again.

        Raises:
            TokenExpired: it was valid once.
            TokenInvalid: anything else is wrong with it, its scope included.
        """
        keys = self._jwks.current()
        now_s = self._clock()
        digest = digest_of(token)
        context = self._cache.get(digest, now_s, keys)
        if context is None:
            context = self._verified(token, keys, now_s)
            self._cache.put(digest, context, context.expires_at_s, now_s, keys)
        if context.scope not in scopes:
            raise TokenInvalid(f"a transaction token of scope {context.scope} is not accepted here")
        return context

    def _verified(self, token: str, keys: KeySet, now_s: float) -> UserExecutionContext:
        if len(token) > _TOKEN_MAX_CHARS:
            raise TokenInvalid("the transaction token is too long")
        try:
            key = keys.find(jws.key_id(token, typ=TYP))
            if key is None or not isinstance(key.key, Ed25519PublicKey):
                raise TokenInvalid("the transaction token names no key of this chain")
            claims = jws.verified_claims(token, key.key)
        except jws.Malformed as error:
            raise TokenInvalid(f"the transaction token is not valid: {error}") from None
        if claims.get("aud") != self._trust_domain:
            raise TokenInvalid("the transaction token is of another trust domain")
        # Expired means expired: the leeway is for clocks that disagree about `iat`.
        if check.seconds(claims, "exp") <= now_s:
            raise TokenExpired
        return _context(claims, check.expiry(claims, now_s, _LEEWAY_S), token)


def _context(claims: dict[str, Any], expires_at_s: float, token: str) -> UserExecutionContext:
    about = claims.get("tctx")
    if not isinstance(about, dict):
        raise TokenInvalid("the transaction token has no tctx")
    try:
        return UserExecutionContext(
            principal=check.principal(claims, check.text(about, "tenant")),
            thread=parse_thread_id(check.text(about, "thread")),
            run=parse_run_id(check.text(claims, "txn")),
            agent=check.text(about, "agent"),
            attempt=check.integer(about, "attempt"),
            scope=Scope(check.text(claims, "scope")),
            base=check.integer(about, "base"),
            base_seq=check.integer(about, "base_seq"),
            base_epoch=check.integer(about, "base_epoch"),
            deadline_s=check.seconds(about, "deadline"),
            expires_at_s=expires_at_s,
            limits=_limits(about.get("limits")),
            token=token,
        )
    except (InvalidField, RunNotFound, ValueError):
        raise TokenInvalid("the transaction token is not of this version") from None


def _limits(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TokenInvalid("the transaction token has no limits")
    return {name: check.integer(value, name) for name in value}
