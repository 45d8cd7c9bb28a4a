from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from factorychain._core.jwks import parse_jwks
from factorychain._core.jws import b64url
from factorychain._core.keys import TxnKey


def document(*keys: dict[str, Any]) -> bytes:
    return orjson.dumps({"keys": list(keys)})


def rsa_jwk(private: RSAPrivateKey, **more: str) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(private.public_key(), as_dict=True), **more}


def test_a_key_may_be_used_with_its_own_algorithm_only() -> None:
    private = rsa.generate_private_key(65537, 2048)
    found = parse_jwks(document(rsa_jwk(private, kid="a"), rsa_jwk(private, kid="b", alg="RS512")))
    named_a, named_b = found.find("a"), found.find("b")
    assert named_a is not None
    assert named_a.algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert named_b is not None
    assert named_b.algorithms == {"RS512"}


def test_symmetric_and_encryption_keys_are_left_out() -> None:
    good = TxnKey.generate()
    found = parse_jwks(
        document(
            {"kty": "oct", "kid": "s", "k": b64url(b"secret" * 8)},
            {**TxnKey.generate().public_jwk(), "kid": "e", "use": "enc"},
            {**TxnKey.generate().public_jwk(), "kid": "x", "alg": "HS256"},
            good.public_jwk(),
        )
    )
    assert set(found.keys) == {good.kid}


def test_the_private_part_of_a_careless_document_is_not_kept() -> None:
    private = rsa.generate_private_key(65537, 2048)
    jwk = {**RSAAlgorithm.to_jwk(private, as_dict=True), "kid": "a"}
    assert "d" in jwk
    found = parse_jwks(document(jwk)).find("a")
    assert found is not None
    assert isinstance(found.key, RSAPublicKey)


def test_a_token_without_kid_finds_a_key_only_if_there_is_one() -> None:
    one, other = TxnKey.generate(), TxnKey.generate()
    assert parse_jwks(document(one.public_jwk())).find(None) is not None
    assert parse_jwks(document(one.public_jwk(), other.public_jwk())).find(None) is None


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":1}',
        b'{"keys":[1]}',
        b'{"keys":[{}]}',
        b'{"keys":[]}',
        b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"?"}]}',
    ],
)
def test_a_document_without_a_usable_key_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no JWK Set|has no asymmetric"):
        parse_jwks(bad)
