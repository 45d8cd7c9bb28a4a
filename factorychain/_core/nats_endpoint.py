"""Where NATS is, and who connects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NatsEndpoint:
    """Where NATS is and who connects. `password` is read when connecting, so that it may change."""

    url: str
    """One `nats://host:port`, or several with commas between."""
    user: str = ""
    password_file: Path | None = None

    def password(self) -> str:
        return self.password_file.read_text().strip() if self.password_file else ""


def inbox_prefix(user: str) -> str:
    """Where replies to a NATS user go: nobody else may listen there."""
    return f"_INBOX_{user}" if user else "_INBOX"
