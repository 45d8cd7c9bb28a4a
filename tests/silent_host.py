"""A host that takes everything and has nothing, for tests to derive theirs from."""

from __future__ import annotations

from collections.abc import Sequence

from factorychain._instance.memory_values import MemoryValues
from factorychain._instance.spec import SpanRecord


class SilentConversation:
    """`Conversation` of a thread that is new."""

    def __init__(self) -> None:
        self.kept = MemoryValues()

    async def history(self, limit: int) -> Sequence[bytes]:
        return []

    async def load(self, name: str) -> tuple[bytes | None, int]:
        return self.kept.load(name)

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        return self.kept.store(name, value, revision)


class SilentHost(SilentConversation):
    """`RunHost`."""

    async def emit(self, kind: int, event: bytes) -> None: ...

    def beat(self) -> None: ...

    def created(self) -> None: ...

    def span(self, record: SpanRecord) -> None: ...
