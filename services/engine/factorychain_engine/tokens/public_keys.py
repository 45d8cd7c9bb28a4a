"""The public keys that verify transaction tokens, for whoever asks."""

from __future__ import annotations

from pathlib import Path

import orjson

from factorychain._core.keys import TxnKey, jwks_document

_PUBLIC_MEMBERS = frozenset({"kty", "crv", "x", "kid", "use", "alg"})


class PublicKeys:
    """The key that this engine signs with, and those that the other layers accept besides.

    Invariant: only members that are public are ever given out, whatever the file holds.
    """

    def __init__(self, signing: TxnKey, jwks_file: Path | None) -> None:
        self._signing = signing
        self._jwks_file = jwks_file

    def jwks_json(self) -> str:
        """A JWK Set (RFC 7517)."""
        own = orjson.loads(jwks_document([self._signing]))["keys"]
        accepted = self._accepted()
        named = {each["kid"] for each in own}
        others = [each for each in accepted if each.get("kid") not in named]
        return orjson.dumps({"keys": [*own, *others]}).decode()

    def _accepted(self) -> list[dict[str, str]]:
        if self._jwks_file is None:
            return []
        try:
            listed = orjson.loads(self._jwks_file.read_bytes())["keys"]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # the verifier of this process reports what is wrong with the file
        return [
            {name: value for name, value in each.items() if name in _PUBLIC_MEMBERS}
            for each in listed
            if each.get("kty") == "OKP"
        ]
