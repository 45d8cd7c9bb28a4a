"""What is concluded from what is seen of the engine's buckets."""

from __future__ import annotations

import pytest

from factorychain._core.stored import StreamContents
from factorychain_engine.storage.state import Change, Loss, StorageState, Trouble

DAY_S = 86_400.0
NOW_S = 1_800_000_000.0


class Buckets:
    """The state of three buckets, seen with a clock that the test moves."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        kept_s = {"users": float("inf"), "runs": 90 * DAY_S, "values": None}
        self.state = StorageState(kept_s, 1.0, self.changes.append)
        self.now_s = 100.0

    def seen(
        self, bucket: str, messages: int, created: str = "1", last_at_s: float = NOW_S
    ) -> Loss | None:
        contents = StreamContents(created, messages, last_at_s)
        return self.state.seen(bucket, contents, NOW_S)

    @property
    def said(self) -> list[tuple[str, Trouble | None]]:
        return [(each.bucket, each.trouble) for each in self.changes]

    def refusal(self) -> str:
        refusal = self.state.refusal()
        if refusal is None:
            return ""
        assert (refusal.reason, refusal.layer) == ("CHAIN_DEGRADED", "nats")
        assert refusal.retry_after_s
        return refusal.message


@pytest.fixture
def buckets() -> Buckets:
    return Buckets()


def test_without_room_nothing_starts_until_something_was_stored(buckets: Buckets) -> None:
    assert buckets.refusal() == ""
    buckets.state.full("users", "maximum bytes exceeded")
    buckets.state.full("users", "maximum bytes exceeded")
    assert "no room" in buckets.refusal()
    assert buckets.state.to_prove() == ["users"]
    buckets.state.proved("users")
    assert (buckets.refusal(), buckets.state.to_prove()) == ("", [])
    assert buckets.said == [("users", Trouble.FULL), ("users", None)]


def test_an_answer_that_did_not_come_is_no_trouble_before_it_was_tried_again(
    buckets: Buckets,
) -> None:
    buckets.state.unanswered("runs")
    assert (buckets.refusal(), buckets.state.to_prove()) == ("", ["runs"])
    buckets.state.not_proved("runs", "no answer")
    assert "stores nothing" in buckets.refusal()
    assert buckets.state.to_prove() == ["runs"]
    buckets.state.proved("runs")
    assert buckets.said == [("runs", Trouble.SILENT), ("runs", None)]


def test_a_bucket_that_was_deleted_is_in_trouble_until_it_is_seen_again(buckets: Buckets) -> None:
    assert buckets.seen("users", 3) is None
    buckets.state.missing("users", buckets.now_s)
    buckets.state.missing("users", buckets.now_s)
    assert "lost" in buckets.refusal()
    assert buckets.seen("users", 0, created="2") is Loss.DELETED
    assert buckets.seen("users", 0, created="2") is None
    assert buckets.said == [("users", Trouble.MISSING), ("users", None)]


def test_users_records_are_made_again_once_every_engine_has_looked(buckets: Buckets) -> None:
    state = buckets.state
    state.missing("users", 100.0)
    assert state.may_make("users", 100.0, at_once=True)
    assert not state.may_make("users", 101.9, at_once=False)
    state.missing("users", 101.9)
    assert state.may_make("users", 102.0, at_once=False)
    buckets.seen("users", 0)
    state.missing("users", 200.0)
    assert not state.may_make("users", 200.5, at_once=False)


def test_a_bucket_that_another_engine_made_again_between_two_looks_is_noticed(
    buckets: Buckets,
) -> None:
    buckets.seen("values", 3)
    assert buckets.seen("values", 5, created="2") is Loss.DELETED


def test_what_never_goes_by_itself_was_purged_if_it_is_less(buckets: Buckets) -> None:
    assert buckets.seen("users", 3) is None
    assert buckets.seen("users", 4) is None
    assert buckets.seen("users", 1) is None  # of a leader that is behind, perhaps
    assert buckets.seen("users", 4) is None
    assert buckets.seen("users", 1) is None
    assert buckets.seen("users", 1) is Loss.PURGED
    assert buckets.seen("users", 1) is None


def test_what_is_known_to_be_lost_is_not_found_out_once_more(buckets: Buckets) -> None:
    buckets.seen("users", 3)
    buckets.seen("users", 0)
    buckets.state.forget("users")
    assert [buckets.seen("users", 0) for _ in range(3)] == [None] * 3


def test_what_goes_by_its_age_was_purged_if_nothing_is_left_that_was_young(
    buckets: Buckets,
) -> None:
    buckets.seen("runs", 3)
    assert buckets.seen("runs", 2) is None
    old = NOW_S - 91 * DAY_S
    assert [buckets.seen("runs", 0, last_at_s=old) for _ in range(3)] == [None] * 3
    buckets.seen("runs", 2)
    buckets.seen("runs", 0, last_at_s=NOW_S - DAY_S)
    assert buckets.seen("runs", 0, last_at_s=NOW_S - DAY_S) is Loss.PURGED


def test_a_bucket_whose_contents_go_at_any_time_may_be_empty(buckets: Buckets) -> None:
    buckets.seen("values", 3)
    assert [buckets.seen("values", 0) for _ in range(3)] == [None] * 3


def test_a_purge_is_noticed_although_there_was_no_room_just_before(buckets: Buckets) -> None:
    buckets.seen("users", 2)
    buckets.state.full("users", "no room")
    buckets.state.proved("users")
    buckets.seen("users", 2)
    buckets.seen("users", 0)
    assert buckets.seen("users", 0) is Loss.PURGED


def test_after_a_loss_nothing_starts_until_every_engine_has_entered_its_runs(
    buckets: Buckets,
) -> None:
    state = buckets.state
    assert state.held_s(100.0) == 0.0
    assert state.users_lost(100.0)
    assert "entered again" in buckets.refusal()
    assert not state.users_lost(100.5)
    assert state.held_s(101.0) == 2.5
    assert not state.entered_again(102.4)
    assert buckets.refusal()
    assert state.entered_again(102.5)
    assert (buckets.refusal(), state.restoring, state.held_s(102.5)) == ("", False, 0.0)


def test_the_worst_is_said_first(buckets: Buckets) -> None:
    buckets.state.full("values", "no room")
    buckets.state.missing("users", 100.0)
    assert "lost" in buckets.refusal()
    buckets.seen("users", 0)
    assert "no room" in buckets.refusal()


def test_records_are_whole_when_two_looks_have_found_the_same(buckets: Buckets) -> None:
    whole = []
    for messages, created in ((3, "1"), (3, "1"), (2, "1"), (2, "1"), (2, "1"), (2, "2"), (2, "2")):
        buckets.seen("users", messages, created)
        whole.append(buckets.state.is_whole("users"))
    assert whole == [False, True, False, False, True, False, True]
    buckets.state.missing("users", buckets.now_s)
    assert not buckets.state.is_whole("users")
