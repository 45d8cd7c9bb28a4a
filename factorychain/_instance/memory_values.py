"""The values of one thread in memory, for hosts that have no engine.

Invariant: as in the engine: of two changes of one revision only one is made.
"""

from __future__ import annotations

from factorychain.errors import StateConflict


class MemoryValues:
    """Named values, changed by compare-and-set."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[bytes, int]] = {}
        self._last = 0

    def load(self, name: str) -> tuple[bytes | None, int]:
        """The value and its revision; None and 0 if there is none."""
        return self._values.get(name, (None, 0))

    def store(self, name: str, value: bytes | None, revision: int) -> int:
        """Replace exactly this revision; the new one, 0 if it was removed.

        Raises:
            StateConflict: it has another revision.
        """
        _, stored = self.load(name)
        if stored != revision:
            raise StateConflict(name)
        if value is None:
            self._values.pop(name, None)
            return 0
        self._last += 1
        self._values[name] = (value, self._last)
        return self._last
