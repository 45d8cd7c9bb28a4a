"""The buckets that the engine owns."""

from __future__ import annotations

from typing import Final

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket, ensure_bucket

USERS: Final = "users"
RUNS: Final = "runs"
THREADS: Final = "threads"
VALUES: Final = "values"
ENGINES: Final = "engines"


class Storage:
    """A component: makes the buckets before anything uses them."""

    name = "storage"

    def __init__(self, js: JetStream, *, records_max_age_s: float, replicas: int) -> None:
        """`records_max_age_s` 0 keeps for ever what runs and threads leave."""
        self._js = js
        self._records_max_age_s = records_max_age_s
        self._replicas = replicas
        self.users = KvBucket.of(js, USERS)
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
            (RUNS, self._records_max_age_s),
            (THREADS, self._records_max_age_s),
            (VALUES, self._records_max_age_s),
        ):
            await ensure_bucket(self._js, name, max_age_s=max_age_s, replicas=self._replicas)

    async def stop(self) -> None:
        """Nothing to do: the buckets stay."""
