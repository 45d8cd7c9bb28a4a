"""A host that takes everything and has nothing, for tests to derive theirs from."""

from __future__ import annotations

from collections.abc import Sequence

from factorychain._core.execution_context import UserExecutionContext
from factorychain._instance.memory_values import MemoryValues
from factorychain._instance.spec import SpanRecord
from factorychain.errors import InputTimeout


class SilentConversation:
    """`Conversation` of a thread that is new."""

    def __init__(self) -> None:
        self.kept = MemoryValues()

    def renewed(self, ctx: UserExecutionContext) -> None: ...

    async def history(self, limit: int) -> Sequence[bytes]:
        return []

    async def load(self, name: str) -> tuple[bytes | None, int]:
        return self.kept.load(name)

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        return self.kept.store(name, value, revision)


class SilentHost(SilentConversation):
    """`RunHost`."""

    async def emit(self, kind: int, event: bytes) -> None: ...

    async def ask(self, event: bytes, timeout_s: float) -> bytes:
        raise InputTimeout

    def beat(self) -> None: ...

    def created(self) -> None: ...

    def span(self, record: SpanRecord) -> None: ...
