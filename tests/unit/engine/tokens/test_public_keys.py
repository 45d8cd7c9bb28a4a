"""The keys that anybody may read."""

from __future__ import annotations

from pathlib import Path

import orjson

from factorychain._core.keys import TxnKey, jwks_document
from factorychain_engine.tokens.public_keys import PublicKeys


def kids(keys: PublicKeys) -> list[str]:
    return [each["kid"] for each in orjson.loads(keys.jwks_json())["keys"]]


def test_the_signing_key_comes_with_those_of_the_chain(tmp_path: Path) -> None:
    mine, old = TxnKey.generate(), TxnKey.generate()
    path = tmp_path / "jwks.json"
    path.write_text(jwks_document([old, mine]))
    assert kids(PublicKeys(mine, path)) == [mine.kid, old.kid]
    assert kids(PublicKeys(mine, None)) == [mine.kid]


def test_no_private_part_leaves_whatever_the_file_holds(tmp_path: Path) -> None:
    mine, other = TxnKey.generate(), TxnKey.generate()
    path = tmp_path / "jwks.json"
    leaked = {**other.public_jwk(), "d": "c2VjcmV0"}
    path.write_bytes(orjson.dumps({"keys": [leaked, {"kty": "oct", "k": "c2VjcmV0"}]}))
    document = PublicKeys(mine, path).jwks_json()
    assert "c2VjcmV0" not in document
    assert other.kid in document


def test_a_file_that_cannot_be_read_hides_no_key_of_ours(tmp_path: Path) -> None:
    mine = TxnKey.generate()
    path = tmp_path / "jwks.json"
    path.write_text("nonsense")
    assert kids(PublicKeys(mine, path)) == [mine.kid]
