"""Who is given what, whatever order frames and connections come in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain.client.events import CaughtUp, Event, Item, Reset, error_from_json
from factorychain.client.listening import QUEUE_MAX_ITEMS, Listener, Listening
from factorychain.errors import ChainDegraded, ErrorCode, InvalidField, SlowConsumer, ThreadBusy


def frame(first: int, last: int, *, epoch: int = 5, run: str = "r", ending: bool = False) -> Any:
    events = [{"seq": n, "run": run, "type": "custom", "data": {}} for n in range(first, last + 1)]
    if ending:
        events[-1]["type"] = "agent_completed"
    return {"op": "events", "thread": "t", "epoch": epoch, "events": events}


def reset(reason: str, epoch: int = 5) -> Any:
    return {"op": "reset", "thread": "t", "epoch": epoch, "reason": reason}


def followed(*listeners: Listener, last: int = 0) -> Listening:
    listening = Listening()
    for each in listeners:
        listening.add(each)
    listening.delivers("t", listeners, last)
    return listening


async def taken(listener: Listener) -> list[Item]:
    listener.end(None)
    found = []
    while True:
        try:
            found.append(await listener.next())
        except StopAsyncIteration:
            return found


async def seqs(listener: Listener) -> list[int]:
    return [each.seq for each in await taken(listener) if isinstance(each, Event)]


async def test_what_was_had_is_not_given_again() -> None:
    listener = Listener("t", seq=2, epoch=5)
    listening = followed(listener)
    listening.on_events(frame(1, 4))
    listening.on_events(frame(3, 6))
    assert await seqs(listener) == [3, 4, 5, 6]


async def test_nothing_is_taken_before_the_server_has_answered() -> None:
    listener = Listener("t")
    listening = Listening()
    listening.add(listener)
    listening.on_events(frame(7, 8))  # of an earlier subscription, from further on
    listening.delivers("t", [listener], 8)
    listening.on_events(frame(1, 2))
    assert await seqs(listener) == [1, 2]


async def test_the_reply_to_one_request_says_nothing_to_who_waits_for_another() -> None:
    early, late = Listener("t", seq=6, epoch=5), Listener("t")
    listening = followed(early)
    listening.add(late)
    listening.delivers("t", [early], 6)
    listening.on_events(frame(7, 7))
    listening.delivers("t", [late], 7)
    listening.on_events(frame(1, 7))
    assert await seqs(late) == list(range(1, 8))
    assert await seqs(early) == [7]


async def test_a_run_is_given_its_own_events_up_to_its_ending() -> None:
    listener = Listener("t", run="mine", seq=0, epoch=5)
    listening = followed(listener)
    listening.on_events(frame(1, 1, run="other"))
    listening.on_events(frame(2, 3, run="mine", ending=True))
    listening.on_events(frame(4, 4, run="mine"))
    assert listener.done
    assert listening.threads() == []
    assert await seqs(listener) == [2, 3]


async def test_positions_resume_everybody_from_the_lowest() -> None:
    listening = followed(Listener("t", seq=9, epoch=5), Listener("t", seq=4, epoch=5))
    assert listening.position("t") == (4, 5)
    listening.add(Listener("t", seq=1, epoch=6))
    assert listening.position("t") == (0, 0)


async def test_another_epoch_is_a_reset_then_everything() -> None:
    listener = Listener("t", seq=9, epoch=5)
    listening = followed(listener)
    listening.on_reset(reset("EPOCH_CHANGED", epoch=6))
    listening.on_events(frame(1, 2, epoch=6))
    first, *rest = await taken(listener)
    assert first == Reset("t", 6, "EPOCH_CHANGED")
    assert [each.seq for each in rest if isinstance(each, Event)] == [1, 2]


async def test_events_of_another_epoch_without_a_reset_are_one() -> None:
    listener = Listener("t", seq=9, epoch=5)
    followed(listener).on_events(frame(1, 1, epoch=6))
    assert [type(each) for each in await taken(listener)] == [Reset, Event]


async def test_an_expired_start_of_the_log_repeats_nothing() -> None:
    listener = Listener("t", seq=2, epoch=5)
    listening = followed(listener, last=8)
    listening.on_reset(reset("LOG_EXPIRED"))
    listening.on_events(frame(6, 8))
    assert [type(each) for each in await taken(listener)] == [Reset, Event, Event, Event]


async def test_an_unknown_position_begins_anew_but_only_for_who_had_it() -> None:
    lost, well = Listener("t", seq=50, epoch=5), Listener("t", seq=3, epoch=5)
    listening = followed(lost, well, last=4)
    listening.on_reset(reset("POSITION_UNKNOWN"))
    listening.on_events(frame(1, 4))
    assert await seqs(lost) == [1, 2, 3, 4]
    assert await taken(well) == [Event("t", 5, 4, "r", "custom", "", {})]


async def test_marks_go_to_threads_and_not_to_runs() -> None:
    thread, run = Listener("t"), Listener("t", run="r")
    followed(thread, run).on_caught_up({"thread": "t", "seq": 0})
    assert await taken(thread) == [CaughtUp("t", 0)]
    assert await taken(run) == []


async def test_who_does_not_take_is_told_so_and_harms_nobody() -> None:
    slow, quick = Listener("t"), Listener("t")
    listening = followed(slow, quick)
    for n in range(QUEUE_MAX_ITEMS + 1):
        listening.on_events(frame(n + 1, n + 1))
        await quick.next()
    for _ in range(QUEUE_MAX_ITEMS):
        await slow.next()
    with pytest.raises(SlowConsumer):
        await slow.next()
    assert not quick.done


async def test_idle_threads_beyond_a_number_are_let_go_the_oldest_first() -> None:
    listening = Listening()
    used = Listener("b")
    listening.add(used)
    for thread in "abcd":
        listening.delivers(thread, [], 0)
    assert listening.idle(2) == ["a", "c"]
    assert not listening.followed("a")
    assert listening.followed("b")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("events"), st.integers(1, 30), st.integers(0, 5)),
            st.tuples(st.just("cut"), st.just(0), st.just(0)),
        ),
        max_size=40,
    )
)
async def test_cuts_and_overlaps_lose_and_repeat_nothing(steps: list[tuple[str, int, int]]) -> None:
    """The log grows; after a cut the server delivers again from the position that it is told."""
    listener = Listener("t", epoch=5)
    listening = followed(listener)
    log = delivered = 0
    for step, size, back in steps:
        if step == "cut":
            listening.disconnected()
            log += 1
            listening.on_events(frame(log, log))  # too late for the old connection
            delivered, _ = listening.position("t")
            listening.delivers("t", listening.waiting("t"), log)
        else:
            log += size
            first = max(1, delivered + 1 - back)
            listening.on_events(frame(first, log))
            delivered = log
    listening.on_events(frame(max(1, delivered), max(1, log)))
    assert await seqs(listener) == list(range(1, max(1, log) + 1))


def test_errors_come_back_typed() -> None:
    busy = error_from_json(
        {"code": "FAILED_PRECONDITION", "reason": "THREAD_BUSY", "message": "m", "run": "r7"}
    )
    assert isinstance(busy, ThreadBusy)
    assert (busy.run, busy.message) == ("r7", "m")
    bad = error_from_json(
        {
            "code": "INVALID_ARGUMENT",
            "reason": "INVALID_FIELD",
            "message": "m",
            "fields": {"input": "no"},
        }
    )
    assert isinstance(bad, InvalidField)
    assert bad.field == "input"
    away = error_from_json({"code": "UNAVAILABLE", "reason": "CHAIN_DEGRADED", "retry_after_s": 2})
    assert isinstance(away, ChainDegraded)
    assert away.retry_after_s == 2
    unknown = error_from_json({"code": "BRAND_NEW", "reason": "FUTURE", "message": "m"})
    assert (unknown.code, unknown.reason) == (ErrorCode.UNKNOWN, "FUTURE")
