"""How many tokens something is, estimated: no tokenizer fits every model.

The estimate is on the high side for text (English has about 4 bytes a token, most others fewer), so
that a request which fits by it fits the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BYTES_PER_TOKEN: Final = 3.2
_IMAGE: Final = 1500
"""What vendors count for a large image."""
_FRAME: Final = 6
"""Of a message or a part: its role, and what separates it."""


def tokens(value: object) -> int:
    """Of a message, or of anything in one."""
    if isinstance(value, str):
        return int(len(value.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + 1
    if isinstance(value, Mapping):
        if value.get("type") in ("image_url", "file"):
            return _IMAGE
        return _FRAME + sum(tokens(each) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(tokens(each) for each in value)
    return 1
