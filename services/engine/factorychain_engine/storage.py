"""The buckets that the engine owns."""

from __future__ import annotations

from typing import Final

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket, ensure_bucket
from factorychain_engine.waiting_list import ENTRY_MAX_AGE_S

USERS: Final = "users"
QUEUED: Final = "queued"
WAITING: Final = "waiting"
RUNS: Final = "runs"
THREADS: Final = "threads"
VALUES: Final = "values"
ENGINES: Final = "engines"

QUEUED_LONGER_S: Final = 2 * 86_400.0
"""What runs are to be started with is kept for so long beyond the longest wait: until they have ended,
if no engine is there to do it in time, and at most that long if nobody knows of it any more."""


class Storage:
    """A component: makes the buckets before anything uses them."""

    name = "storage"

    def __init__(
        self, js: JetStream, *, records_max_age_s: float, queue_max_s: float, replicas: int
    ) -> None:
        """`records_max_age_s` 0 keeps for ever what runs and threads leave. `queue_max_s`: how long a
        run may wait for a place.
        """
        self._js = js
        self._queue_max_s = queue_max_s
        self._records_max_age_s = records_max_age_s
        self._replicas = replicas
        self.users = KvBucket.of(js, USERS)
        self.queued = KvBucket.of(js, QUEUED)
        self.waiting = KvBucket.of(js, WAITING)
        self.runs = KvBucket.of(js, RUNS)
        self.threads = KvBucket.of(js, THREADS)
        self.values = KvBucket.of(js, VALUES)
        self.engines = KvBucket.of(js, ENGINES)

    @property
    def healthy(self) -> bool:
        return self._js.connection.healthy

    async def start(self) -> None:
        """Make what is missing; another engine may be doing the same.

        Raises:
            NatsUnavailable: storage does not answer.
            StorageRefused: it cannot be made.
        """
        for name, max_age_s in (
            (USERS, 0.0),
            (ENGINES, 0.0),
            (QUEUED, self._queue_max_s + QUEUED_LONGER_S),
            (WAITING, ENTRY_MAX_AGE_S),
            (RUNS, self._records_max_age_s),
            (THREADS, self._records_max_age_s),
            (VALUES, self._records_max_age_s),
        ):
            await ensure_bucket(self._js, name, max_age_s=max_age_s, replicas=self._replicas)

    async def stop(self) -> None:
        """Nothing to do: the buckets stay."""
