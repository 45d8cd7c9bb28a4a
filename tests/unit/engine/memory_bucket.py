"""A bucket without NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator

from factorychain._core.stored import KvEntry, NatsUnavailable, WrongLastSequence


class MemoryBucket:
    """As NATS has it: removed keys leave a marker with a revision."""

    def __init__(self) -> None:
        self.entries: dict[str, KvEntry] = {}
        self.lost_answers = 0
        self.writes = 0
        """How often something was to be stored, whatever became of it."""
        self._seq = 0

    async def read(self, key: str) -> KvEntry:
        return self.entries.get(key, KvEntry(key, None, 0))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._write(key, value, revision)

    async def delete(self, key: str, revision: int | None = None) -> int:
        return await self._write(key, None, revision or 0)

    async def keys(self, pattern: str = ">") -> list[str]:
        prefix = pattern.removesuffix("*")
        return [key for key in self.entries if key.startswith(prefix)]

    async def scan(self) -> AsyncIterator[KvEntry]:
        for entry in list(self.entries.values()):
            yield entry

    async def _write(self, key: str, value: bytes | None, revision: int) -> int:
        self.writes += 1
        stored = self.entries.get(key, KvEntry(key, None, 0))
        if stored.revision != revision:
            raise WrongLastSequence(key, revision, stored.revision)
        self._seq += 1
        self.entries[key] = KvEntry(key, value, self._seq)
        if self.lost_answers:
            self.lost_answers -= 1
            raise NatsUnavailable("no answer", sent=True)
        return self._seq
