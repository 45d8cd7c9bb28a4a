"""Who uses the edges of these tests."""

from __future__ import annotations

import os
from typing import Any

from factorychain._core.ids import Principal
from factorychain._core.user_tokens import mint_user_token

SECRET = os.urandom(32)
AUDIENCE = "factorychain"
EPOCH = 1_763_800_000_000
A = Principal("default", "ana")
B = Principal("default", "ben")


def token(principal: Principal = A, ttl_s: float = 3600, **changes: Any) -> str:
    return mint_user_token(
        changes.pop("secret", SECRET),
        principal,
        ttl_s=ttl_s,
        audience=changes.pop("audience", AUDIENCE),
        **changes,
    )
