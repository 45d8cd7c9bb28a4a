"""Records as they are stored: what goes in comes out, and what is foreign is never used."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.types.v1.run_pb2 import Run, RunState
from factorychain_engine.admission.record import ActiveRun, Totals, UserRecord
from factorychain_engine.records import stored_run, user_json
from factorychain_engine.records.stored_run import StoredRun, UnreadableRecord, record_of
from factorychain_engine.records.user_json import ForeignRecord

ADA = Principal("acme", "ada")
HASH = "0123456789abcdef" * 2
ENTRY = ActiveRun(
    run="r1",
    thread="t1",
    agent="researcher",
    request_hash=HASH,
    owner="e1",
    admitted_at_s=1_763_800_000.123456,
    deadline_s=1_763_800_300.123456,
    base=7,
    base_seq=5,
    base_epoch=1_763_800_000_000,
    agents_address="10.0.0.1:7102",
    agents_boot="b1",
    trace="00-trace",
    replaces="r0",
    cancel="USER",
)


def test_a_user_record_survives_storage_unchanged() -> None:
    record = UserRecord("acme", "ada", (ENTRY,), Totals(runs=3, output_tokens=9))
    assert user_json.decode_for(ADA, user_json.encode(record)) == record
    assert user_json.decode_for(ADA, None) == UserRecord("acme", "ada")


def test_a_user_record_is_readable_json() -> None:
    stored = orjson.loads(user_json.encode(UserRecord("acme", "ada", (ENTRY,))))
    assert stored["user"] == "ada"
    assert stored["active"][0]["agents_address"] == "10.0.0.1:7102"


def test_a_place_that_was_stored_before_cancels_were_marked_is_read() -> None:
    stored = orjson.loads(user_json.encode(UserRecord("acme", "ada", (ENTRY,))))
    del stored["active"][0]["cancel"]
    assert user_json.decode(orjson.dumps(stored)).active == (replace(ENTRY, cancel=""),)


def test_a_users_data_stays_small() -> None:
    assert len(user_json.encode(UserRecord("acme", "ada", (ENTRY, ENTRY)))) < 2048


def test_fields_of_a_later_version_are_ignored() -> None:
    stored = orjson.loads(user_json.encode(UserRecord("acme", "ada", (ENTRY,))))
    stored["later"] = stored["active"][0]["later"] = 1
    assert user_json.decode(orjson.dumps(stored)).active == (ENTRY,)


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", b'{"version":2}', b'{"version":1,"tenant":"a","user":"b","active":[{}]}'],
)
def test_an_unreadable_user_record_is_an_error_and_no_free_place(value: bytes) -> None:
    with pytest.raises(ForeignRecord):
        user_json.decode_for(ADA, value)


def test_the_record_of_another_user_is_never_used() -> None:
    with pytest.raises(ForeignRecord):
        user_json.decode_for(ADA, user_json.encode(UserRecord("acme", "bob")))


def test_a_run_record_survives_storage_unchanged() -> None:
    stored = record_of(ENTRY, '{"text":"?"}', "{}")
    read = stored_run.decode(stored_run.encode(stored), 11)
    assert read == StoredRun(stored.run, HASH, 7, 11)
    assert stored.run == Run(
        run="r1",
        thread="t1",
        agent="researcher",
        state=RunState.RUN_STATE_RUNNING,
        created_at=stored.run.created_at,
        input_json='{"text":"?"}',
        metadata_json="{}",
        attempt=1,
        replaces="r0",
        trace="00-trace",
        after=5,
        epoch=1_763_800_000_000,
    )


@pytest.mark.parametrize(
    "value", [b"", b"\x01", b"\x02" + bytes(40), b"\x01" + bytes(24) + b"\xff\xff"]
)
def test_an_unreadable_run_record_says_so(value: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        stored_run.decode(value, 1)
