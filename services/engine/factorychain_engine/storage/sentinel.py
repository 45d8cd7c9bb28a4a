"""A key of the engine's own in a bucket whose contents go at any time: it goes only with a purge.

What runs keep may be removed or expire, all of it, so that an empty bucket tells nothing. The sentinel is
written by whoever finds none, never removed, and written again long before it is as old as what the bucket
drops. Its value says since when the contents are whole: one that differs is another one's, who found none.

Invariant: it is taken for lost only if it is certainly younger than what goes by its age and has no marker.
What another engine has seen, or what happened before this one looked, is not told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from factorychain._core.stored import KvEntry, StreamContents, WrongLastSequence

KEY: Final = "sentinel"
"""One token: users' keys have more, so that no user finds it among theirs."""

RENEWED_AT: Final = 0.25
JUDGED_UNTIL: Final = 0.5
"""Parts of the age at which the bucket drops what it holds."""


class Bucket(Protocol):
    """What is needed of `KvBucket`."""

    async def read(self, key: str) -> KvEntry: ...

    async def update(self, key: str, value: bytes, revision: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """The sentinel as this engine knows it."""

    created: str
    """Of the stream that it is in."""
    revision: int
    since: bytes
    stored_at_s: float
    """It was stored then, or later."""


class Sentinel:
    """Keeps the sentinel of one bucket and misses it."""

    def __init__(self, bucket: Bucket, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds, since storage drops by the time of day."""
        self._bucket = bucket
        self._clock = clock
        self._known: _Known | None = None

    async def was_purged(self, contents: StreamContents) -> bool:
        """Whether what the bucket held at the last look is gone, by what it holds now.

        Asks nothing more of storage, as a rule. If it raises, nothing is known and nothing forgotten.

        Raises:
            NatsUnavailable: storage does not answer or has no room.
            StorageRefused: it does not take a sentinel.
        """
        now_s, known = self._clock(), self._known
        if known is not None and known.created != contents.created:
            known = None  # of a stream that was deleted, which is no purge
        due = known is None or self._is_older(known, contents, RENEWED_AT, now_s)
        if not due and known is not None and contents.first_seq <= known.revision:
            return False  # nobody can have removed it with all that was stored before it
        entry = await self._bucket.read(KEY)
        lost = (
            known is not None
            and not self._is_older(known, contents, JUDGED_UNTIL, self._clock())
            and _is_another(known, entry)
        )
        if known is not None and entry.value == known.since and not due:
            self._known = replace(known, revision=entry.revision)  # another engine has renewed it
        else:
            await self._store(contents.created, entry, known, now_s, lost=lost)
        return lost

    async def _store(
        self, created: str, found: KvEntry, known: _Known | None, now_s: float, *, lost: bool
    ) -> None:
        """In the place of what was found, unless another engine has stored one since."""
        since = found.value
        if since is None and known is not None and not lost:
            since = known.since
        if since is None:
            since = datetime.fromtimestamp(now_s, UTC).isoformat().encode()
        try:
            revision = await self._bucket.update(KEY, since, found.revision)
        except WrongLastSequence:
            self._known = None
        else:
            self._known = _Known(created, revision, since, now_s)

    @staticmethod
    def _is_older(known: _Known, contents: StreamContents, part: float, now_s: float) -> bool:
        kept_s = contents.max_age_s
        # A clock that was set back says as little as one that has gone on for too long.
        return bool(kept_s) and abs(now_s - known.stored_at_s) > part * kept_s


def _is_another(known: _Known, found: KvEntry) -> bool:
    """Whether what was known must have gone with a purge: it left nothing, or somebody has found nothing
    since. A marker says that this key alone was removed.
    """
    if found.value is None:
        return found.revision == 0
    return found.value != known.since
