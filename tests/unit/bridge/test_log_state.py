"""What is concluded from what is seen of the log's streams."""

from __future__ import annotations

from factorychain._core.stored import StreamContents
from factorychain_bridge.log_state import REMEMBERED, LogState, Loss

AGE_S = 1000.0
NOW_S = 1_800_000_000.0
LOG = "EVENTS-0"


class Looks:
    """Looks at one stream whose newest message is 10, stored now, unless they say otherwise."""

    def __init__(self, max_bytes: int = -1) -> None:
        self.state = LogState(AGE_S, max_bytes)

    def see(
        self,
        first: int = 1,
        last: int = 10,
        *,
        created: str = "1",
        size_bytes: int = 100,
        later_s: float = 0.0,
        is_event: bool = True,
    ) -> Loss | None:
        contents = StreamContents(
            created, last - first + 1, NOW_S, first_seq=first, last_seq=last, size_bytes=size_bytes
        )
        return self.state.seen(LOG, contents, NOW_S + later_s, ends_in_event=is_event)

    def twice(self, first: int, last: int, **seen: float) -> list[Loss | None]:
        size_bytes, later_s = int(seen.get("size_bytes", 100)), seen.get("later_s", 0.0)
        return [self.see(first, last, size_bytes=size_bytes, later_s=later_s) for _ in range(2)]


def test_what_was_never_seen_is_not_lost() -> None:
    looks = Looks()
    assert looks.state.missing(LOG) is None
    assert looks.see() is None
    assert looks.see(first=5, last=12) is None


def test_a_deleted_stream_is_a_loss_once_whether_it_is_missed_or_found_made_again() -> None:
    looks = Looks()
    looks.see()
    assert looks.state.missing(LOG) is Loss.DELETED
    assert looks.state.missing(LOG) is None
    assert looks.see(created="2") is None
    assert looks.see(created="3", first=1000, last=999) is Loss.DELETED
    assert looks.see(created="3", first=1000, last=999) is None


def test_a_purge_is_a_loss_at_the_second_look_and_once() -> None:
    looks = Looks()
    looks.see()
    assert looks.twice(11, 10) == [None, Loss.PURGED]
    assert looks.twice(11, 10) == [None, None]


def test_a_purge_is_seen_though_events_have_come_since_and_the_next_purge_too() -> None:
    looks = Looks()
    looks.see()
    assert looks.twice(11, 14) == [None, Loss.PURGED]
    assert looks.twice(11, 15) == [None, None]
    assert looks.twice(16, 15) == [None, Loss.PURGED]


def test_a_leader_that_is_behind_for_one_look_is_no_loss() -> None:
    looks = Looks()
    looks.see()
    assert looks.see(1, 8) is None
    assert looks.see(1, 12) is None
    assert looks.see(1, 8) is None


def test_what_is_gone_by_age_is_no_loss() -> None:
    looks = Looks()
    looks.see()
    assert looks.twice(11, 10, later_s=AGE_S) == [None, None]
    assert looks.twice(11, 10, later_s=0.95 * AGE_S) == [None, None]  # clocks differ


def test_what_is_gone_for_want_of_room_is_no_loss() -> None:
    looks = Looks(max_bytes=1000)
    looks.see()
    assert looks.twice(500, 900, size_bytes=990) == [None, None]
    assert looks.twice(500, 900, size_bytes=100) == [None, None]
    assert looks.twice(901, 901, size_bytes=100) == [None, Loss.PURGED]


def test_what_was_stored_only_to_try_is_not_missed() -> None:
    looks = Looks()
    looks.see(1, 10, is_event=False)
    assert looks.twice(11, 10) == [None, None]
    looks = Looks()
    looks.see(1, 10)
    looks.see(1, 11, is_event=False)
    assert looks.see(1, 11) is None  # the try is gone by now, events before it are not
    assert looks.see(11, 11) is None
    assert looks.see(12, 11) is Loss.PURGED


def test_a_purge_that_leaves_the_newest_events_is_a_loss_too() -> None:
    looks = Looks()
    looks.see(1, 10)
    for last in range(11, 20):
        assert looks.see(1, last) is None
    assert looks.twice(15, 20) == [None, Loss.PURGED]
    assert looks.twice(15, 24) == [None, None]
    assert looks.twice(22, 24) == [None, Loss.PURGED]


def test_what_goes_by_age_behind_newer_events_is_no_loss() -> None:
    looks, stored_at_s = Looks(), list[float]()

    def see(first: int, now_s: float) -> Loss | None:
        number = len(stored_at_s)
        seen = StreamContents(
            "1", number - first + 1, NOW_S + stored_at_s[-1], first, number, size_bytes=100
        )
        return looks.state.seen(LOG, seen, NOW_S + now_s, ends_in_event=True)

    for now_s in range(0, int(5 * AGE_S), 7):
        stored_at_s.append(now_s)
        # The server drops what is old enough by its own clock, which is ahead or behind.
        for ahead_s in (-0.05 * AGE_S, 0.05 * AGE_S):
            young = (n for n, at_s in enumerate(stored_at_s, 1) if now_s + ahead_s - at_s < AGE_S)
            assert see(min(young), now_s) is None
    assert len(looks.state._shards[LOG].events) <= REMEMBERED + 2
    oldest = min(n for n, at_s in enumerate(stored_at_s, 1) if now_s - at_s < 0.8 * AGE_S)
    assert [see(oldest, now_s) for _ in range(2)] == [None, Loss.PURGED]
