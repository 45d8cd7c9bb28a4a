"""What agents keep in a thread, with storage in memory."""

from __future__ import annotations

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain._core.stored import KvEntry, NatsUnavailable
from factorychain.errors import (
    AttemptSuperseded,
    FactoryChainError,
    InvalidField,
    RunEnded,
    StateConflict,
    StateLimit,
)
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.records import stored_value
from factorychain_engine.records.stored_value import ForeignValue, StoredValue
from factorychain_engine.records.thread_values import Change, Loaded, ThreadValues, ValueLimits
from factorychain_engine.records.users_store import Versioned
from tests.token_samples import ADA, run_context
from tests.unit.engine.memory_bucket import MemoryBucket

BOB = Principal("acme", "bob")
CONTEXT = run_context()


class Places:
    """Every run that is named has its place."""

    def __init__(self) -> None:
        self.entries = {(ADA, CONTEXT.run): entry(), (BOB, CONTEXT.run): entry()}

    async def read(self, principal: Principal) -> Versioned:
        active = tuple(each for (who, _), each in self.entries.items() if who == principal)
        return Versioned(UserRecord(principal.tenant, principal.user, active), 1)


def entry(run: str = CONTEXT.run, thread: str = "t1", attempt: int = 1) -> ActiveRun:
    return ActiveRun(run, thread, "a", "0" * 32, "e1", 0.0, 1e12, 0, 0, 1, attempt)


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture
def values(bucket: MemoryBucket, places: Places) -> ThreadValues:
    return ThreadValues(bucket, places, ValueLimits(value_max_bytes=10, values_max=3))


def change(
    value: bytes | None, revision: int = 0, name: str = "state", request_id: str = ""
) -> Change:
    return Change(name, value, revision, request_id or f"r-{value!r}-{revision}")


async def test_what_is_stored_is_loaded(values: ThreadValues) -> None:
    assert await values.load(CONTEXT, "state") == Loaded(None, 0)
    revision = await values.store(CONTEXT, change(b"one\n{}"))
    assert await values.load(CONTEXT, "state") == Loaded(b"one\n{}", revision)
    second = await values.store(CONTEXT, change(b"", revision))
    assert await values.load(CONTEXT, "state") == Loaded(b"", second)


async def test_the_same_names_of_others_and_of_other_threads_are_other_values(
    values: ThreadValues, places: Places
) -> None:
    contexts = [
        CONTEXT,
        run_context(principal=BOB),
        run_context(run="r" + "b" * 24, thread="t2"),
    ]
    places.entries[ADA, "r" + "b" * 24] = entry("r" + "b" * 24, "t2")
    for index, context in enumerate(contexts):
        await values.store(context, change(str(index).encode()))
    found = [(await values.load(each, "state")).value for each in contexts]
    assert found == [b"0", b"1", b"2"]


async def test_names_with_dots_and_colons_are_told_apart(values: ThreadValues) -> None:
    for name in ("a.b", "a:b", "a-b"):
        await values.store(CONTEXT, change(name.encode(), name=name))
    for name in ("a.b", "a:b", "a-b"):
        assert (await values.load(CONTEXT, name)).value == name.encode()


async def test_of_two_changes_of_one_revision_only_one_is_made(values: ThreadValues) -> None:
    revision = await values.store(CONTEXT, change(b"first"))
    await values.store(CONTEXT, change(b"mine", revision, request_id="a"))
    with pytest.raises(StateConflict):
        await values.store(CONTEXT, change(b"yours", revision, request_id="b"))
    # Not even one that would store the same: it was made from what is there no more.
    with pytest.raises(StateConflict):
        await values.store(CONTEXT, change(b"mine", revision, request_id="b"))
    with pytest.raises(StateConflict):
        await values.store(CONTEXT, change(b"new", 0, request_id="c"))
    with pytest.raises(StateConflict):
        await values.store(CONTEXT, change(None, revision, request_id="d"))
    assert (await values.load(CONTEXT, "state")).value == b"mine"


@pytest.mark.parametrize("value", [b"kept", None])
async def test_a_store_that_is_repeated_after_a_lost_answer_finds_itself(
    values: ThreadValues, bucket: MemoryBucket, value: bytes | None
) -> None:
    revision = await values.store(CONTEXT, change(b"before"))
    repeated = change(value, revision)
    bucket.lost_answers = 1
    with pytest.raises(NatsUnavailable):
        await values.store(CONTEXT, repeated)
    answered = await values.store(CONTEXT, repeated)
    assert await values.load(CONTEXT, "state") == Loaded(value, answered)


async def test_what_was_removed_can_be_stored_anew(values: ThreadValues) -> None:
    revision = await values.store(CONTEXT, change(b"one"))
    assert await values.store(CONTEXT, change(None, revision)) == 0
    assert await values.load(CONTEXT, "state") == Loaded(None, 0)
    await values.store(CONTEXT, change(b"two", 0, request_id="again"))
    assert (await values.load(CONTEXT, "state")).value == b"two"


async def test_a_value_and_a_thread_have_their_limits(values: ThreadValues) -> None:
    with pytest.raises(StateLimit, match="11 bytes"):
        await values.store(CONTEXT, change(bytes(11)))
    for name in ("a", "b", "c"):
        await values.store(CONTEXT, change(b"x", name=name))
    with pytest.raises(StateLimit, match="3 values"):
        await values.store(CONTEXT, change(b"x", name="d"))
    revision = (await values.load(CONTEXT, "a")).revision
    await values.store(CONTEXT, change(b"y", revision, name="a"))


@pytest.mark.parametrize("name", ["", "A", "a b", "a*", "a>", "ä", "n" * 129, "a\n"])
async def test_what_is_no_name_is_refused(values: ThreadValues, name: str) -> None:
    with pytest.raises(InvalidField):
        await values.load(CONTEXT, name)
    with pytest.raises(InvalidField):
        await values.store(CONTEXT, change(b"x", name=name))


@pytest.mark.parametrize("request_id", ["", "a b", "r" * 129, "ü"])
async def test_a_change_has_an_id(values: ThreadValues, request_id: str) -> None:
    with pytest.raises(InvalidField):
        await values.store(CONTEXT, Change("state", b"x", 0, request_id))


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (None, RunEnded),
        (entry(thread="t2"), RunEnded),
        (entry(attempt=2), AttemptSuperseded),
    ],
)
async def test_a_run_that_has_lost_its_place_neither_reads_nor_stores(
    values: ThreadValues,
    places: Places,
    found: ActiveRun | None,
    error: type[FactoryChainError],
) -> None:
    await values.store(CONTEXT, change(b"before"))
    del places.entries[ADA, CONTEXT.run]
    if found is not None:
        places.entries[ADA, CONTEXT.run] = found
    with pytest.raises(error):
        await values.load(CONTEXT, "state")
    with pytest.raises(error):
        await values.store(CONTEXT, change(b"late", 1))


async def test_a_value_under_the_key_of_another_thread_is_never_used(
    values: ThreadValues, bucket: MemoryBucket
) -> None:
    await values.store(CONTEXT, change(b"mine"))
    (key,) = bucket.entries
    others = stored_value.encode(run_context(thread="t2"), "state", StoredValue(b"theirs", "r"))
    for foreign in (others, b"", b"{}\nx", orjson.dumps({"version": 2}) + b"\nx"):
        bucket.entries[key] = KvEntry(key, foreign, 9)
        with pytest.raises(ForeignValue):
            await values.load(CONTEXT, "state")
