"""How a value of a thread is laid out in storage.

A line of JSON that says whose it is and which request stored it, then the value's own bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from factorychain._core.execution_context import UserExecutionContext

VERSION: Final = 1


class ForeignValue(Exception):
    """A stored value says that it is someone else's, or cannot be read: it must never be used."""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value, and the request that stored it."""

    value: bytes
    request_id: str


def encode(context: UserExecutionContext, name: str, stored: StoredValue) -> bytes:
    """The value as it is stored."""
    head = {
        "version": VERSION,
        **_owner(context, name),
        "run": context.run,
        "request_id": stored.request_id,
    }
    return orjson.dumps(head) + b"\n" + stored.value


def decode(context: UserExecutionContext, name: str, found: bytes) -> StoredValue:
    """Read a value of this context's thread.

    Raises:
        ForeignValue: it is of another thread or name (two names with one key) or unreadable.
    """
    head, _, value = found.partition(b"\n")
    try:
        fields = orjson.loads(head)
        if fields["version"] > VERSION:
            raise ForeignValue(
                f"a value has version {fields['version']}, this engine reads {VERSION}"
            )
        if any(fields[key] != owner for key, owner in _owner(context, name).items()):
            raise ForeignValue(f"the value under {context.principal.ukey} is of another thread")
        return StoredValue(value, str(fields["request_id"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ForeignValue(f"a value cannot be read: {type(error).__name__}") from error


def _owner(context: UserExecutionContext, name: str) -> dict[str, str]:
    return {
        "tenant": context.principal.tenant,
        "user": context.principal.user,
        "thread": context.thread,
        "name": name,
    }
