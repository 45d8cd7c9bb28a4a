"""Keys, contexts and tokens for tests."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal, run_id_for
from factorychain._core.jwks import KeySet, parse_jwks
from factorychain._core.jws import b64url
from factorychain._core.keys import TxnKey, jwks_document
from factorychain._core.txn_tokens import TxnSigner

NOW_S = 1_800_000_000.0
TRUST_DOMAIN = "chain-of-a-test"
ADA = Principal("acme", "ada")


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Keys:
    """A key source whose keys can be exchanged."""

    key_set: KeySet

    def current(self) -> KeySet:
        return self.key_set


def key_set(*keys: TxnKey) -> KeySet:
    return parse_jwks(jwks_document(keys).encode())


def issued(signer: TxnSigner, **changes: Any) -> UserExecutionContext:
    fields: dict[str, Any] = {
        "principal": ADA,
        "thread": "t1",
        "run": run_id_for(ADA, "req-1"),
        "agent": "researcher",
        "attempt": 1,
        "scope": Scope.RUN,
        "base": 41,
        "base_seq": 17,
        "base_epoch": 1_763_800_000_000,
        "deadline_s": NOW_S + 300,
        "limits": {"output_max_bytes": 262_144},
    }
    return signer.issue(**{**fields, **changes})


def run_context(**changes: Any) -> UserExecutionContext:
    """As verified from a token: the first run of an empty thread, with five minutes to go."""
    now_s = time.time()
    fields: dict[str, Any] = {
        "principal": ADA,
        "thread": "t1",
        "run": "r" + "a" * 24,
        "agent": "researcher",
        "attempt": 1,
        "scope": Scope.RUN,
        "base": 0,
        "base_seq": 0,
        "base_epoch": 1,
        "deadline_s": now_s + 300,
        "expires_at_s": now_s + 360,
        "limits": {},
        "token": "a token of a test",
    }
    return UserExecutionContext(**{**fields, **changes})


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    return f"{b64url(orjson.dumps(header))}.{b64url(orjson.dumps(claims))}.{signature}"


def public_pem(key: TxnKey) -> bytes:
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hmac_signed(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """HS256 by hand: PyJWT refuses to sign with what looks like a public key."""
    body = f"{b64url(orjson.dumps(header))}.{b64url(orjson.dumps(claims))}"
    return f"{body}.{b64url(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"
