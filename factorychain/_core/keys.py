"""Keys: the engine's Ed25519 key, the public document of it, the secret of development tokens.

Invariant: a private key is written only to a new file of mode 0600, and appears in no `repr`, log line
or error.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from factorychain._core.jws import ALGORITHM, b64url, b64url_decode

SECRET_MIN_BYTES = 32  # RFC 7518 section 3.2: no shorter than HS256's output
_PRIVATE_MODE = 0o600


class KeyUnusable(ValueError):
    """A key file cannot be used; the message says which, why and how to mend it."""


@dataclass(frozen=True, slots=True)
class TxnKey:
    """A private key that signs transaction tokens."""

    private: Ed25519PrivateKey = field(repr=False)
    kid: str
    """RFC 7638 thumbprint of the public key."""

    @classmethod
    def generate(cls) -> Self:
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a PEM (PKCS 8) or JWK file.

        Raises:
            KeyUnusable: it cannot be read, or holds no Ed25519 private key.
        """
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise KeyUnusable(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise KeyUnusable(
                f"{path}: {error}; `openssl genpkey -algorithm ed25519` makes a usable key"
            ) from None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """A key from PEM or JWK.

        Raises:
            ValueError: neither, or of another kind.
        """
        if data.lstrip().startswith(b"{"):
            return cls._of(_private_of_jwk(data))
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            raise ValueError("holds no unencrypted private key in PEM or JWK form") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("holds a private key that is not Ed25519")
        return cls._of(key)

    @classmethod
    def _of(cls, private: Ed25519PrivateKey) -> Self:
        return cls(private, thumbprint(_public_members(private.public_key())))

    def to_pem(self) -> bytes:
        """The private key; write it with `write_private` only."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def public_jwk(self) -> dict[str, str]:
        members = _public_members(self.private.public_key())
        return {**members, "kid": self.kid, "use": "sig", "alg": ALGORITHM}


def thumbprint(members: dict[str, str]) -> str:
    """RFC 7638 over the required members of a public key (RFC 8037 for Ed25519)."""
    canonical = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
    return b64url(hashlib.sha256(canonical).digest())


def jwks_document(keys: Iterable[TxnKey]) -> str:
    """The public keys as a JWK Set (RFC 7517)."""
    return orjson.dumps({"keys": [key.public_jwk() for key in keys]}).decode()


def new_secret() -> str:
    """A shared secret or password of 256 bits."""
    return secrets.token_urlsafe(32)


def read_secret(path: Path) -> bytes:
    """The secret in a file, without surrounding white space.

    Raises:
        KeyUnusable: it cannot be read or is too short.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise KeyUnusable(f"{path}: cannot be read: {error.strerror}") from error
    if len(secret) < SECRET_MIN_BYTES:
        raise KeyUnusable(
            f"{path}: a secret needs at least {SECRET_MIN_BYTES} bytes, this has {len(secret)}"
        )
    return secret


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read.

    Raises:
        FileExistsError: it exists; a key is never overwritten.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _public_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {
        "crv": "Ed25519",
        "kty": "OKP",
        "x": b64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw)),
    }


def _private_of_jwk(data: bytes) -> Ed25519PrivateKey:
    jwk: dict[str, Any] = orjson.loads(data)
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519" or not isinstance(jwk.get("d"), str):
        raise ValueError("holds a JWK that is no Ed25519 private key")
    return Ed25519PrivateKey.from_private_bytes(b64url_decode(jwk["d"]))
