"""A bucket whose troubles are heard of by whoever has to do with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from factorychain._core.jetstream import Stream
from factorychain._core.kv import KvBucket
from factorychain._core.stored import NatsUnavailable, StorageFull
from factorychain_engine.storage.state import StorageState


class WatchedBucket(KvBucket):
    """Tells `state` which writes did not succeed."""

    def __init__(self, stream: Stream, name: str, state: StorageState) -> None:
        super().__init__(stream, name)
        self._name = name
        self._state = state

    async def update(
        self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None
    ) -> int:
        with self._writing():
            return await super().update(key, value, revision, ttl_s=ttl_s)

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        with self._writing():
            return await super().put(key, value, ttl_s=ttl_s)

    async def delete(self, key: str, revision: int | None = None, *, marker_ttl_s: int = 60) -> int:
        with self._writing():
            return await super().delete(key, revision, marker_ttl_s=marker_ttl_s)

    async def try_to_store(self) -> None:
        with self._writing():
            await super().try_to_store()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except StorageFull as error:
            self._state.full(self._name, error.what)
            raise
        except NatsUnavailable as error:
            if error.sent:
                self._state.unanswered(self._name)
            raise
