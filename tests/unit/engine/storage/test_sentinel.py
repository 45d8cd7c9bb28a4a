"""What is concluded from the key that a bucket of values must always have."""

from __future__ import annotations

import pytest

from factorychain._core.stored import (
    KvEntry,
    NatsUnavailable,
    StreamContents,
    WrongLastSequence,
)
from factorychain_engine.storage.sentinel import KEY, Sentinel

DAY_S = 86_400.0


class Values:
    """A bucket of values as NATS keeps one, with a clock that the test moves."""

    def __init__(self) -> None:
        self.max_age_s = 90 * DAY_S
        self.now_s = 1_800_000_000.0
        self.created = "1"
        self.entries: dict[str, tuple[KvEntry, float]] = {}
        self.reads = 0
        self.writes = 0
        self.lost_answers = 0
        self._seq = 0

    async def read(self, key: str) -> KvEntry:
        self.reads += 1
        self._expire()
        found = self.entries.get(key)
        return KvEntry(key, None, 0) if found is None else found[0]

    async def update(self, key: str, value: bytes, revision: int) -> int:
        self._expire()
        stored = self.entries[key][0].revision if key in self.entries else 0
        if stored != revision:
            raise WrongLastSequence(key, revision, stored)
        self.writes += 1
        self.store(key, value)
        if self.lost_answers:
            self.lost_answers -= 1
            raise NatsUnavailable("no answer", sent=True)
        return self._seq

    def store(self, key: str, value: bytes | None = b"v") -> None:
        """None: the marker of a removed key."""
        self._seq += 1
        self.entries[key] = (KvEntry(key, value, self._seq), self.now_s)

    def purge(self) -> None:
        self.now_s += 1.0
        self.entries.clear()

    def contents(self) -> StreamContents:
        self._expire()
        revisions = [entry.revision for entry, _ in self.entries.values()]
        first_seq = min(revisions, default=self._seq + 1)
        return StreamContents(
            self.created, len(revisions), 0.0, first_seq, self._seq, max_age_s=self.max_age_s
        )

    def _expire(self) -> None:
        if self.max_age_s:
            kept = self.entries.items()
            self.entries = {k: v for k, v in kept if self.now_s - v[1] < self.max_age_s}


class Watcher:
    """An engine that looks."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._sentinel = Sentinel(values, lambda: values.now_s)

    async def looks(self, times: int = 1) -> list[bool]:
        return [await self._sentinel.was_purged(self._values.contents()) for _ in range(times)]


@pytest.fixture
def values() -> Values:
    return Values()


@pytest.fixture
def watcher(values: Values) -> Watcher:
    return Watcher(values)


async def test_a_purge_is_told_once_each_time(values: Values, watcher: Watcher) -> None:
    values.store("u.t.old")  # before there was a sentinel
    assert await watcher.looks(2) == [False] * 2
    values.store("u.t.new")
    values.purge()
    assert await watcher.looks(3) == [True, False, False]
    values.purge()
    assert await watcher.looks(2) == [True, False]


async def test_a_purge_of_the_older_part_is_told(values: Values, watcher: Watcher) -> None:
    await watcher.looks()
    values.store("u.t.new")
    del values.entries[KEY]
    assert await watcher.looks(2) == [True, False]


async def test_a_look_asks_for_the_key_only_if_it_may_be_gone(
    values: Values, watcher: Watcher
) -> None:
    values.store("u.t.state")
    await watcher.looks(5)
    assert (values.reads, values.writes) == (1, 1)


async def test_values_that_are_removed_or_expire_are_no_loss(
    values: Values, watcher: Watcher
) -> None:
    values.store("u.t.state")
    await watcher.looks()
    values.store("u.t.state", None)
    del values.entries["u.t.state"]  # as the marker does
    assert await watcher.looks(2) == [False] * 2
    for _ in range(400):
        values.now_s += DAY_S
        assert await watcher.looks() == [False]
    values.purge()
    assert await watcher.looks(2) == [True, False]


async def test_two_engines_miss_it_once_each_and_do_not_replace_each_others(
    values: Values, watcher: Watcher
) -> None:
    other = Watcher(values)
    for _ in range(400):
        assert await watcher.looks() + await other.looks() == [False] * 2
        values.now_s += DAY_S
    writes = values.writes
    for _ in range(5):
        await watcher.looks()
        await other.looks()
    assert values.writes == writes
    values.purge()
    assert await watcher.looks(3) + await other.looks(3) == [True, False, False] * 2


async def test_an_engine_that_starts_after_a_purge_hides_it_from_nobody(
    values: Values, watcher: Watcher
) -> None:
    await watcher.looks()
    values.purge()
    assert await Watcher(values).looks(2) == [False] * 2
    assert await watcher.looks(2) == [True, False]


async def test_what_a_pause_may_have_let_expire_is_not_taken_for_lost(
    values: Values, watcher: Watcher
) -> None:
    await watcher.looks()
    values.now_s += 91 * DAY_S
    assert await watcher.looks(2) == [False] * 2
    values.now_s -= 91 * DAY_S  # the clock was wrong
    values.purge()
    assert await watcher.looks(2) == [False] * 2
    values.max_age_s = 60.0  # what is kept for a minute only, as of now
    values.now_s += 3600.0
    assert await watcher.looks(2) == [False] * 2
    values.purge()
    assert await watcher.looks(2) == [True, False]


async def test_what_never_expires_is_lost_however_long_nobody_looked(
    values: Values, watcher: Watcher
) -> None:
    values.max_age_s = 0.0
    await watcher.looks()
    values.now_s += 1000 * DAY_S
    values.purge()
    assert await watcher.looks(2) == [True, False]


async def test_somebody_who_removes_the_key_alone_gets_another(
    values: Values, watcher: Watcher
) -> None:
    other = Watcher(values)
    await watcher.looks()
    await other.looks()
    values.store(KEY, None)
    assert await watcher.looks(2) + await other.looks(2) == [False] * 4
    values.purge()
    assert await watcher.looks(2) + await other.looks(2) == [True, False] * 2


async def test_another_stream_is_no_purge(values: Values, watcher: Watcher) -> None:
    await watcher.looks()
    values.purge()
    values.created = "2"
    assert await watcher.looks(2) == [False] * 2
    values.purge()
    assert await watcher.looks(2) == [True, False]


async def test_a_loss_is_told_although_storage_did_not_answer_at_first(
    values: Values, watcher: Watcher
) -> None:
    await watcher.looks()
    values.purge()
    values.lost_answers = 1
    with pytest.raises(NatsUnavailable):
        await watcher.looks()
    assert await watcher.looks(2) == [True, False]
