"""Switches one layer's check of tokens off, in that layer's process only. For the tests of forged events.

It is found because the tests put this folder on PYTHONPATH. Whose check is off stands in a file that
UNCHECKED_LAYER_FILE names, read at every check. The product itself has no such switch.
"""

import os
import sys
from pathlib import Path

_LAYERS = ("engine", "agents", "emitter", "bridge")
_FILE = os.environ.get("UNCHECKED_LAYER_FILE", "")


def _without_signatures(layer: str) -> None:
    import base64
    import json

    from factorychain._core import txn_tokens, user_tokens

    verify, verify_user = txn_tokens.TxnVerifier.verify, user_tokens.UserVerifier.verify
    verify_cached = user_tokens.UserVerifier.verify_cached

    def off() -> bool:
        return Path(_FILE).read_text() == layer

    def payload(token: str) -> dict[str, object]:
        part = token.split(".")[1]
        claims: dict[str, object] = json.loads(
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        )
        return claims

    def believe(self, token, *args, **kwargs):  # type: ignore[no-untyped-def]
        if not off():
            return verify(self, token, *args, **kwargs)
        claims = payload(token)
        print(f"UNCHECKED {layer}", file=sys.stderr)
        return txn_tokens._context(claims, float(str(claims["exp"])), token)

    async def believe_user(self, token):  # type: ignore[no-untyped-def]
        if not off():
            return await verify_user(self, token)
        print(f"UNCHECKED {layer}", file=sys.stderr)
        return self._user(payload(token))

    def believe_cached(self, token):  # type: ignore[no-untyped-def]
        return None if off() else verify_cached(self, token)

    txn_tokens.TxnVerifier.verify = believe  # type: ignore[method-assign]
    user_tokens.UserVerifier.verify = believe_user  # type: ignore[method-assign]
    user_tokens.UserVerifier.verify_cached = believe_cached  # type: ignore[method-assign]


for _layer in _LAYERS:
    if _FILE and f"factorychain_{_layer}" in sys.orig_argv:
        _without_signatures(_layer)
