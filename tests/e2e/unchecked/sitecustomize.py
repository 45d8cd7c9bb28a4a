"""Switches one layer's check of tokens off, in that layer's process only. For the tests of forged events.

It is found because the tests put this folder on PYTHONPATH and name the layer in UNCHECKED_LAYER. The
product itself has no such switch.
"""

import os
import sys

_LAYER = os.environ.get("UNCHECKED_LAYER", "")


def _without_signatures() -> None:
    import base64
    import json

    from factorychain._core import txn_tokens, user_tokens

    def payload(token: str) -> dict[str, object]:
        part = token.split(".")[1]
        claims: dict[str, object] = json.loads(
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        )
        return claims

    def believe(self, token, *args, **kwargs):  # type: ignore[no-untyped-def]
        claims = payload(token)
        return txn_tokens._context(claims, float(str(claims["exp"])), token)

    async def believe_user(self, token):  # type: ignore[no-untyped-def]
        return self._user(payload(token))

    txn_tokens.TxnVerifier.verify = believe  # type: ignore[method-assign]
    user_tokens.UserVerifier.verify = believe_user  # type: ignore[method-assign]
    user_tokens.UserVerifier.verify_cached = lambda self, token: None  # type: ignore[method-assign]
    print(f"UNCHECKED {_LAYER}", file=sys.stderr)


if _LAYER and f"factorychain_{_LAYER}" in sys.orig_argv:
    _without_signatures()
