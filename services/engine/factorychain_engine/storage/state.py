"""What is known of the trouble that the engine's buckets are in. No I/O: told what was seen, it decides.

Invariants: nothing new starts while a bucket is in trouble, nor, after users' records were lost, until
every engine has had the time to enter again the runs that it looks after. A loss is told once, and a
trouble once when it begins and once when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from factorychain._core.stored import RETRY_WHEN_FULL_AFTER_S, StreamContents
from factorychain.errors import ChainDegraded

LOOKS_UNTIL_MADE: Final = 2
"""So many looks after users' records were found missing they are made again: by then every engine has
seen that, and starts nothing that it does not know to be within its user's limit."""
LOOKS_UNTIL_RESTORED: Final = 2
"""So many looks after they are back every engine has seen that, too, and entered its runs again."""
RETRY_AFTER_S: Final = 2.0


class Trouble(StrEnum):
    """What a bucket suffers from."""

    MISSING = "missing"
    """It was deleted."""
    FULL = "full"
    """There is no room for more."""
    SILENT = "silent"
    """What is to be stored is not answered, although questions are."""


class Loss(StrEnum):
    """How contents were lost."""

    DELETED = "deleted"
    PURGED = "purged"
    VANISHED = "found to be gone"


_SAID: Final = {
    Trouble.MISSING: ("storage has lost records, which are being made again", RETRY_AFTER_S),
    Trouble.FULL: ("storage has no room for more", RETRY_WHEN_FULL_AFTER_S),
    Trouble.SILENT: (
        "storage answers and stores nothing; it may have no room",
        RETRY_WHEN_FULL_AFTER_S,
    ),
}
_LOST: Final = "storage has lost records; the runs that are under way are being entered again"


@dataclass(frozen=True, slots=True)
class Change:
    """A trouble has begun, or (None) is over."""

    bucket: str
    trouble: Trouble | None
    cause: str = ""


class StorageState:
    """The state of all buckets."""

    def __init__(
        self, kept_s: Mapping[str, float | None], look_s: float, on_change: Callable[[Change], None]
    ) -> None:
        """`kept_s`: by bucket the age at which its contents go, infinite if never; None: at any time, so
        that an empty one is nothing odd. `look_s`: how often every engine looks.
        """
        self._kept_s = kept_s
        self._look_s = look_s
        self._on_change = on_change
        self._troubles: dict[str, Trouble] = {}
        self._missing_since_s: dict[str, float] = {}
        self._doubtful: set[str] = set()
        self._less: set[str] = set()
        self._whole: set[str] = set()
        self._contents: dict[str, StreamContents] = {}
        self._restoring = False
        self._held_until_s = 0.0

    # --- what is asked ----------------------------------------------------------------------

    @property
    def restoring(self) -> bool:
        """Users' records were lost, and not everything is entered again."""
        return self._restoring

    def held_s(self, now_s: float) -> float:
        """How long it takes, as a rule, until everything is entered again; 0: nothing was lost."""
        if not self._restoring:
            return 0.0
        return max(0.0, self._held_until_s + self._look_s - now_s)

    def refusal(self) -> ChainDegraded | None:
        """Why nothing new may start; None: it may."""
        if not self._troubles and not self._restoring:
            return None
        for trouble in Trouble:  # the worst first
            if trouble in self._troubles.values():
                said, retry_after_s = _SAID[trouble]
                return _refusal(said, retry_after_s)
        return _refusal(_LOST, RETRY_AFTER_S) if self._restoring else None

    def to_prove(self) -> list[str]:
        """The buckets of which only storing something tells how they are."""
        stuck = (Trouble.FULL, Trouble.SILENT)
        return sorted(
            self._doubtful | {each for each, trouble in self._troubles.items() if trouble in stuck}
        )

    def may_make(self, bucket: str, now_s: float, *, at_once: bool) -> bool:
        """Whether a bucket that is missing may be made again."""
        since_s = self._missing_since_s.get(bucket, now_s)
        return at_once or now_s - since_s >= LOOKS_UNTIL_MADE * self._look_s

    def is_whole(self, bucket: str) -> bool:
        """Whether the last look has shown that nothing was lost since the one before."""
        return bucket in self._whole

    # --- what happens -----------------------------------------------------------------------

    def full(self, bucket: str, cause: str) -> None:
        """Something was refused for want of room."""
        self._enter(bucket, Trouble.FULL, cause)

    def unanswered(self, bucket: str) -> None:
        """Something was to be stored, and there was no answer."""
        self._doubtful.add(bucket)

    def not_proved(self, bucket: str, cause: str) -> None:
        """Again there was no answer, from a server that answers questions."""
        self._doubtful.discard(bucket)
        self._enter(bucket, Trouble.SILENT, cause)

    def proved(self, bucket: str) -> None:
        """Something was stored, to see whether it is."""
        self._doubtful.discard(bucket)
        self._over(bucket, Trouble.FULL, Trouble.SILENT)

    def missing(self, bucket: str, now_s: float) -> None:
        """There is no such bucket."""
        self._missing_since_s.setdefault(bucket, now_s)
        self._whole.discard(bucket)
        self._doubtful.discard(bucket)
        self._enter(bucket, Trouble.MISSING, "it was deleted")

    def seen(self, bucket: str, contents: StreamContents, wall_s: float) -> Loss | None:
        """What is in a bucket, without what an engine stored only to see whether it is; whether what was
        there before is lost.
        """
        before = self._contents.get(bucket)
        self._contents[bucket] = contents
        self._whole.discard(bucket)
        self._missing_since_s.pop(bucket, None)
        self._over(bucket, Trouble.MISSING)
        if before is None:
            return None
        if before.created != contents.created:
            return Loss.DELETED
        if not self._was_purged(bucket, before, contents, wall_s):
            self._less.discard(bucket)
            self._whole.add(bucket)
            return None
        return self._seen_less(bucket, before)

    def forget(self, bucket: str) -> None:
        """It is known already that what was there is lost."""
        self._contents.pop(bucket, None)
        self._less.discard(bucket)

    def users_lost(self, now_s: float) -> bool:
        """Users' records are gone: begin to enter again what is known; False: that is being done."""
        was_known = self._restoring
        self._restoring = True
        self._held_until_s = now_s + LOOKS_UNTIL_RESTORED * self._look_s
        return not was_known

    def entered_again(self, now_s: float) -> bool:
        """Everything that this engine knew of is in the records again, as of now; whether the others have
        had the time for it, too.
        """
        if now_s >= self._held_until_s:
            self._restoring = False
        return not self._restoring

    # --- steps ------------------------------------------------------------------------------

    def _seen_less(self, bucket: str, before: StreamContents) -> Loss | None:
        """What is seen twice is so: a server that has just become the leader may be behind at first."""
        if bucket in self._less:
            self._less.discard(bucket)
            return Loss.PURGED
        self._less.add(bucket)
        self._contents[bucket] = before
        return None

    def _was_purged(
        self, bucket: str, before: StreamContents, now: StreamContents, wall_s: float
    ) -> bool:
        kept_s = self._kept_s[bucket]
        if kept_s is None or now.messages >= before.messages:
            return False
        # What never goes by itself cannot become less; of the rest the last stored is the last to go.
        return kept_s == float("inf") or (now.messages == 0 and wall_s - now.last_at_s < kept_s)

    def _enter(self, bucket: str, trouble: Trouble, cause: str) -> None:
        if self._troubles.get(bucket) in (trouble, Trouble.MISSING):
            return
        self._troubles[bucket] = trouble
        self._on_change(Change(bucket, trouble, cause))

    def _over(self, bucket: str, *troubles: Trouble) -> None:
        if self._troubles.get(bucket) in troubles:
            del self._troubles[bucket]
            self._on_change(Change(bucket, None))


def _refusal(said: str, retry_after_s: float) -> ChainDegraded:
    return ChainDegraded("nats", message=f"{said}; try again later", retry_after_s=retry_after_s)
