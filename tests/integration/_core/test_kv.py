"""Buckets against a real server."""

from __future__ import annotations

import asyncio

import pytest

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket, ensure_bucket
from factorychain._core.stored import KvEntry, WrongLastSequence
from tests.waiting import until_not


@pytest.fixture
async def users(engine_js: JetStream) -> KvBucket:
    return await ensure_bucket(engine_js, "users")


async def test_a_key_is_created_once(users: KvBucket) -> None:
    revision = await users.create("u1", b"a")
    with pytest.raises(WrongLastSequence):
        await users.create("u1", b"b")
    assert await users.get("u1") == KvEntry("u1", b"a", revision)


async def test_a_key_that_is_not_there_reads_as_nothing(users: KvBucket) -> None:
    assert await users.get("u1") is None
    assert await users.read("u1") == KvEntry("u1", None, 0)


async def test_an_update_replaces_exactly_one_revision(users: KvBucket) -> None:
    first = await users.create("u1", b"a")
    second = await users.update("u1", b"b", first)
    with pytest.raises(WrongLastSequence) as lost:
        await users.update("u1", b"c", first)
    assert lost.value.actual == second
    assert await users.get("u1") == KvEntry("u1", b"b", second)


async def test_concurrent_increments_lose_none(users: KvBucket) -> None:
    await users.create("u1", b"0")

    async def increment() -> None:
        while True:
            entry = await users.read("u1")
            assert entry.value is not None
            try:
                await users.update("u1", b"%d" % (int(entry.value) + 1), entry.revision)
            except WrongLastSequence:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(20)))
    entry = await users.get("u1")
    assert entry is not None
    assert entry.value == b"20"


async def test_a_removed_key_is_gone_and_can_be_created_again(users: KvBucket) -> None:
    first = await users.create("u1", b"a")
    marker = await users.delete("u1", first)
    assert await users.get("u1") is None
    assert await users.read("u1") == KvEntry("u1", None, marker)
    assert await users.list() == []
    assert await users.create("u1", b"b") > marker


async def test_a_removal_that_expects_another_revision_removes_nothing(users: KvBucket) -> None:
    first = await users.create("u1", b"a")
    second = await users.update("u1", b"b", first)
    with pytest.raises(WrongLastSequence):
        await users.delete("u1", first)
    assert await users.get("u1") == KvEntry("u1", b"b", second)


async def test_the_marker_of_a_removed_key_goes_by_itself(users: KvBucket) -> None:
    first = await users.create("u1", b"a")
    await users.delete("u1", first, marker_ttl_s=1)
    await until_not(users.keys)
    assert await users.read("u1") == KvEntry("u1", None, 0)


async def test_what_was_only_tried_to_be_stored_is_nothing_that_the_bucket_holds(
    users: KvBucket,
) -> None:
    await users.try_to_store()
    assert (await users.contents()).messages == 0
    await users.create("u1", b"a")
    await users.try_to_store()
    assert sorted(await users.keys()) == ["try", "u1"]
    assert (await users.contents()).messages == 1


async def test_a_key_with_a_ttl_is_gone_after_it_and_can_be_created_at_once(
    engine_js: JetStream,
) -> None:
    engines = await ensure_bucket(engine_js, "engines")
    await engines.create("e1", b"alive", ttl_s=1)
    await until_not(lambda: engines.get("e1"))
    await engines.create("e1", b"again", ttl_s=60)
    assert await engines.get("e1")


async def test_a_renewed_heartbeat_outlives_its_first_ttl(engine_js: JetStream) -> None:
    engines = await ensure_bucket(engine_js, "engines")
    revision = await engines.put("e1", b"1", ttl_s=1)
    await engines.put("e2", b"1", ttl_s=1)
    async with asyncio.timeout(10):
        # e2 shows how long a second is to the server.
        while await engines.get("e2"):
            revision = await engines.update("e1", b"2", revision, ttl_s=60)
            await asyncio.sleep(0.05)
    assert await engines.get("e1") == KvEntry("e1", b"2", revision)


async def test_a_run_is_found_by_its_user_and_id_alone(engine_js: JetStream) -> None:
    runs = await ensure_bucket(engine_js, "runs", max_age_s=3600)
    for user in ("u1", "u2"):
        for thread in ("t1", "t2"):
            await runs.put(f"{user}.{thread}.r-{user}-{thread}", f"{user} {thread}".encode())
    found = await runs.find("u1.*.r-u1-t2")
    assert found is not None
    assert (found.key, found.value) == ("u1.t2.r-u1-t2", b"u1 t2")
    assert await runs.find("u1.*.r-u2-t2") is None
    await runs.delete(found.key, found.revision)
    assert await runs.find("u1.*.r-u1-t2") is None


async def test_a_list_holds_what_matches_in_the_order_of_writing(engine_js: JetStream) -> None:
    runs = await ensure_bucket(engine_js, "runs")
    for key in ("u1.t1.r1", "u1.t2.r2", "u2.t1.r3", "u1.t1.r4"):
        await runs.put(key, key.encode())
    await runs.put("u1.t1.r1", b"changed")
    assert [entry.key for entry in await runs.list("u1.*.*")] == [
        "u1.t2.r2",
        "u1.t1.r4",
        "u1.t1.r1",
    ]
    assert [entry.key for entry in await runs.list("u1.t1.*")] == ["u1.t1.r4", "u1.t1.r1"]
    assert await runs.list("u3.>") == []


async def test_a_list_of_more_keys_than_one_request_may_name_is_complete(
    engine_js: JetStream,
) -> None:
    runs = await ensure_bucket(engine_js, "runs")
    keys = {f"u1.t{n % 7}.r{n}" for n in range(2100)}
    await asyncio.gather(*(runs.put(key, key.encode()) for key in keys))
    entries = await runs.list("u1.>")
    assert len(entries) == len(keys)
    assert {entry.key for entry in entries} == keys
    assert all(entry.value == entry.key.encode() for entry in entries)
    assert set(await runs.keys("u1.t3.*")) == {key for key in keys if key.startswith("u1.t3.")}


async def test_a_bucket_of_another_service_can_be_read(
    engine_js: JetStream, bridge_js: JetStream
) -> None:
    runs = await ensure_bucket(engine_js, "runs")
    await runs.put("u1.t1.r1", b"record")
    seen = KvBucket.of(bridge_js, "runs")
    assert await seen.get("u1.t1.r1") == await runs.get("u1.t1.r1")
    assert [entry.key for entry in await seen.list("u1.>")] == ["u1.t1.r1"]
    assert await seen.find("u1.*.r1")
