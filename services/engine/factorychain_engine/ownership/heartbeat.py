"""Says that this engine lives, under a key that goes by itself when the engine does.

Invariant: the key is there from before the first run is admitted; nothing but the adoption of runs
depends on it, never a place.
"""

from __future__ import annotations

import asyncio
import time

import orjson

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.kv import KvBucket
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable

log = get_logger(__name__)


class Heartbeat:
    """A component: this engine's key, and the look at those of the others."""

    name = "heartbeat"

    def __init__(self, bucket: KvBucket, engine_id: str, ttl_s: float) -> None:
        self._bucket = bucket
        self._engine_id = engine_id
        self._ttl_s = ttl_s
        self._tasks = TaskSet(self.name)
        self._renewed_at_s = float("-inf")

    @property
    def healthy(self) -> bool:
        """Whether the others can know that this engine lives."""
        return self._tasks.healthy and time.monotonic() - self._renewed_at_s < self._ttl_s

    async def start(self) -> None:
        """Renewed once before this returns.

        Raises:
            NatsUnavailable: storage does not answer.
        """
        await self._renew()
        _ = self._tasks.spawn(self._beat(), "beat")

    async def stop(self) -> None:
        """The others know at once."""
        await self._tasks.close()
        try:
            async with asyncio.timeout(1.0):
                await self._bucket.delete(self._engine_id)
        except (NatsUnavailable, TimeoutError):
            log.info("the heartbeat is left to expire")

    async def engines(self) -> list[str]:
        """Every engine that lives.

        Raises:
            NatsUnavailable: storage does not answer.
        """
        return [entry.key async for entry in self._bucket.scan()]

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self._renew()
            except NatsUnavailable as error:
                log.warning("the heartbeat was not renewed", cause=error.what)

    async def _renew(self) -> None:
        value = orjson.dumps({"at_s": round(time.time(), 3)})
        await self._bucket.put(self._engine_id, value, ttl_s=round(self._ttl_s))
        self._renewed_at_s = time.monotonic()
        crash_point("engine.heartbeat.renewed")
