"""Compact signed tokens (RFC 7515) with Ed25519, and nothing else.

Invariant: exactly one form is accepted: a header of `typ`, `alg` and `kid` and no other member, with
the one algorithm. There is nothing to negotiate, so there is nothing to confuse.

PyJWT, which checks user tokens, takes 255 µs where this takes 150, of which 135 are the signature;
each run's token is verified by three layers before its first event is seen.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "EdDSA"

_MEMBERS = {"typ", "alg", "kid"}
# 64 bytes of signature are 86 characters.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})\Z")


class Malformed(ValueError):
    """Not a token of this form. The message never quotes it."""


def sign(claims: dict[str, Any], key: Ed25519PrivateKey, *, typ: str, kid: str) -> str:
    header = {"typ": typ, "alg": ALGORITHM, "kid": kid}
    signed = f"{b64url(orjson.dumps(header))}.{b64url(orjson.dumps(claims))}"
    return f"{signed}.{b64url(key.sign(signed.encode()))}"


def key_id(token: str, *, typ: str) -> str:
    """The key that a token names, with its header checked and its signature not yet.

    Raises:
        Malformed: another form, type or algorithm.
    """
    parts = _COMPACT.match(token)
    if parts is None:
        raise Malformed("it has not the form of a signed token")
    return _key_id(parts[1], typ)


@lru_cache(maxsize=64)
def _key_id(encoded: str, typ: str) -> str:
    """All tokens of one key have the same header: one that was accepted is known."""
    header = _parse(encoded)
    if set(header) != _MEMBERS or header["alg"] != ALGORITHM or header["typ"] != typ:
        raise Malformed(f"its header is not that of a {typ}")
    kid = header["kid"]
    if not isinstance(kid, str):
        raise Malformed("its kid is no string")
    return kid


def verified_claims(token: str, key: Ed25519PublicKey) -> dict[str, Any]:
    """The claims of a token whose header `key_id` has accepted.

    Raises:
        Malformed: the signature is not this key's, or the claims are no JSON object.
    """
    signed, _, signature = token.rpartition(".")
    try:
        key.verify(_decode(signature), signed.encode())
    except InvalidSignature:
        raise Malformed("its signature is wrong") from None
    return _parse(signed.partition(".")[2])


def b64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """The bytes of unpadded base64url.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ValueError("not base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _decode(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise Malformed("it is not base64url") from None


def _parse(part: str) -> dict[str, Any]:
    try:
        value = orjson.loads(_decode(part))
    except orjson.JSONDecodeError:
        raise Malformed("it holds no JSON") from None
    if not isinstance(value, dict):
        raise Malformed("it holds no JSON object")
    return value
