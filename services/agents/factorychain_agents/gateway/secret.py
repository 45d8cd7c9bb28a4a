"""Secrets that the operator gives, and their removal from what comes back.

Invariant: a secret is in no representation of anything here, and no answer carries one to a run, also not
where a server repeats what it was sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from factorychain._core.settings import Misconfigured

REMOVED: Final = b"[removed]"
_SHORTEST: Final = 6
"""What is shorter would be found in any text."""


class Secret:
    """A text that is not shown."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def reveal(self) -> str:
        """The text, for the request that needs it."""
        return self._value


def secret_file(path: Path, where: str) -> Secret:
    """The secret in a file, without the white space around it.

    Raises:
        Misconfigured: it cannot be read, is empty, or cannot stand in a header.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{where}: {path} cannot be read ({error})") from error
    return secret_text(text, f"{where}: {path}")


def secret_text(text: str, where: str) -> Secret:
    """A secret that can be sent in a header.

    Raises:
        Misconfigured: it is empty, or cannot.
    """
    if not text:
        raise Misconfigured(f"{where}: the secret is empty")
    if not text.isprintable() or not text.isascii():
        raise Misconfigured(f"{where}: the secret has characters that no header may have")
    return Secret(text)


class Remover:
    """Takes secrets out of a stream of bytes. What may be the beginning of one waits for the next piece."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        texts = (each.reveal().encode() for each in secrets)
        self._secrets = tuple(each for each in texts if len(each) >= _SHORTEST)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can go on."""
        data = self._removed(self._held + data)
        kept = max((_beginning(data, each) for each in self._secrets), default=0)
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept] if kept else data

    def finish(self) -> bytes:
        """What was held back, and turned out to be none."""
        held, self._held = self._held, b""
        return held

    def whole(self, data: bytes) -> bytes:
        """All of it at once."""
        return self._removed(data)

    def _removed(self, data: bytes) -> bytes:
        for each in self._secrets:
            if each in data:
                data = data.replace(each, REMOVED)
        return data


def _beginning(data: bytes, secret: bytes) -> int:
    """How many bytes at the end may be the beginning of the secret."""
    longest = min(len(secret) - 1, len(data))
    # Nearly always the answer is none: look for the first character before the comparisons.
    at = data.find(secret[:1], len(data) - longest)
    while at >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at = data.find(secret[:1], at + 1)
    return 0
