"""Server-sent events, as the protocols use them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Frame:
    """One event."""

    data: Mapping[str, Any] | str
    event: str
    """Its name; empty where the protocol names none."""

    def encode(self) -> bytes:
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        named = f"event: {self.event}\n" if self.event else ""
        return f"{named}data: {data}\n\n".encode()


def new_id(kind: str) -> str:
    return (
        f"{kind}_{secrets.token_hex(8)}"
        if kind != "chatcmpl"
        else f"chatcmpl-{secrets.token_hex(8)}"
    )


def split(text: str, parts: int = 3) -> list[str]:
    """A text in a few pieces, as arguments of tools are streamed."""
    size = max(1, -(-len(text) // parts))
    return [text[at : at + size] for at in range(0, len(text), size)]
