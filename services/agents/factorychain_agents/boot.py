"""Which life of which replica this is.

Invariant: a boot id is never used by two processes: who finds another one at an address knows that the
runs of the former are gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Boot:
    """One life of this process."""

    address: Callable[[], str]
    """What Attach, Cancel and Respond dial; known once the server listens."""
    boot_id: str = field(default_factory=lambda: secrets.token_hex(8))
