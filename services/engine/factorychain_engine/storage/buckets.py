"""The buckets that the engine owns."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket, ensure_bucket
from factorychain._core.logging import get_logger
from factorychain._core.telemetry import counter
from factorychain_engine.queue.waiting_list import ENTRY_MAX_AGE_S
from factorychain_engine.storage.state import Change, StorageState
from factorychain_engine.storage.watched_bucket import WatchedBucket

log = get_logger(__name__)
_troubles = counter("factorychain.engine.storage_troubles", "Troubles of buckets, by kind")

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

PATIENCE_S: Final = 5.0
"""So long a start waits for lost records to be entered again, rather than being refused."""


class Storage:
    """A component: makes the buckets before anything uses them."""

    name = "storage"

    def __init__(
        self,
        js: JetStream,
        *,
        records_max_age_s: float,
        queue_max_s: float,
        replicas: int,
        look_s: float,
    ) -> None:
        """`records_max_age_s` 0 keeps for ever what runs and threads leave. `queue_max_s`: how long a
        run may wait for a place. `look_s`: how often `StorageWatch` looks.
        """
        self._js = js
        self._replicas = replicas
        self._max_age_s = {
            USERS: 0.0,
            ENGINES: 0.0,
            QUEUED: queue_max_s + QUEUED_LONGER_S,
            WAITING: ENTRY_MAX_AGE_S,
            RUNS: records_max_age_s,
            THREADS: records_max_age_s,
            VALUES: records_max_age_s,
        }
        records_kept_s = records_max_age_s or float("inf")
        kept_s = dict.fromkeys(self._max_age_s) | {
            USERS: float("inf"),
            RUNS: records_kept_s,
            THREADS: records_kept_s,
        }
        self.state = StorageState(kept_s, look_s, _say)
        self.buckets: dict[str, KvBucket] = {
            each: WatchedBucket(js.stream(f"KV_{each}"), each, self.state)
            for each in self._max_age_s
        }
        self.users = self.buckets[USERS]
        self.queued = self.buckets[QUEUED]
        self.waiting = self.buckets[WAITING]
        self.runs = self.buckets[RUNS]
        self.threads = self.buckets[THREADS]
        self.values = self.buckets[VALUES]
        self.engines = self.buckets[ENGINES]

    @property
    def healthy(self) -> bool:
        return self._js.connection.healthy

    async def start(self) -> None:
        """Make what is missing; another engine may be doing the same.

        Raises:
            NatsUnavailable: storage does not answer.
            StorageRefused: it cannot be made.
        """
        for name in self._max_age_s:
            await self.make(name)

    # --- who wants to start something -------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether something new may start."""
        return self.state.refusal() is None

    def check(self) -> None:
        """Return if something new may start.

        Raises:
            ChainDegraded: storage is in trouble.
        """
        refusal = self.state.refusal()
        if refusal is not None:
            raise refusal

    async def wait_settled(self) -> None:
        """As `check`, but lost records that are being entered again are waited for a moment."""
        held_s = self.state.held_s(time.monotonic())
        if 0.0 < held_s <= PATIENCE_S:
            await asyncio.sleep(held_s)
        self.check()

    # --- the buckets ------------------------------------------------------------------------

    async def make(self, name: str) -> None:
        """Make a bucket, if it is missing; raises as `start` does."""
        await ensure_bucket(
            self._js, name, max_age_s=self._max_age_s[name], replicas=self._replicas
        )

    async def stop(self) -> None:
        """Nothing to do: the buckets stay."""


def _say(change: Change) -> None:
    if change.trouble is None:
        log.info("a bucket is well again", bucket=change.bucket)
        return
    _troubles.add(1, {"kind": change.trouble.value})
    log.critical(
        "a bucket is in trouble, nothing new starts",
        bucket=change.bucket,
        trouble=change.trouble.value,
        cause=change.cause,
    )
