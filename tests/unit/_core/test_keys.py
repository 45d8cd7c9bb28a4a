from __future__ import annotations

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from factorychain._core.jws import b64url
from factorychain._core.keys import TxnKey, jwks_document, thumbprint


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    # RFC 8037, appendix A.3.
    members = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(members) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_key_is_the_same_after_pem_and_after_jwk() -> None:
    key = TxnKey.generate()
    private = b64url(key.private.private_bytes_raw())
    as_jwk = orjson.dumps({**key.public_jwk(), "d": private})
    assert TxnKey.parse(key.to_pem()).kid == key.kid
    assert TxnKey.parse(as_jwk).kid == key.kid


def test_the_public_document_and_the_text_of_a_key_hold_nothing_private() -> None:
    key = TxnKey.generate()
    private = b64url(key.private.private_bytes_raw())
    assert private not in jwks_document([key])
    assert orjson.loads(jwks_document([key]))["keys"][0].keys() == {
        "crv",
        "kty",
        "x",
        "kid",
        "use",
        "alg",
    }
    assert "private" not in repr(key)


def test_another_kind_of_key_is_refused() -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(ValueError, match="not Ed25519"):
        TxnKey.parse(pem)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a key",
        b"{}",
        b'{"kty":"OKP","crv":"Ed25519"}',
        b'{"kty":"OKP","crv":"Ed25519","d":"@"}',
    ],
)
def test_what_is_no_private_key_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"holds|base64url"):
        TxnKey.parse(data)
