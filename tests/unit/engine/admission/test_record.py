"""Admission: the limit, one run a thread, one place a run, over any interleaving of two engines; and who
waits starts in order, once, and is never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from factorychain.errors import InvalidField
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import (
    Queued,
    as_queued,
    drop,
    enqueue,
    give_back,
    mark,
    promote,
)
from factorychain_engine.admission.record import (
    ActiveRun,
    Admitted,
    AlreadyActive,
    AlreadyQueued,
    Behind,
    Busy,
    Full,
    Totals,
    UserRecord,
    accepted,
    admit,
    adopt,
    begun,
    next_attempt,
    release,
    startable,
    to_cancel,
)

LIMIT = 2
MOST_QUEUED = 3
EMPTY = UserRecord("acme", "ada")
HASH = "0" * 32


def entry(run: str, thread: str = "", *, owner: str = "e1", request_hash: str = HASH) -> ActiveRun:
    return ActiveRun(
        run=run,
        thread=thread or f"t-{run}",
        agent="researcher",
        request_hash=request_hash,
        owner=owner,
        admitted_at_s=1.0,
        deadline_s=301.0,
        base=0,
        base_seq=0,
        base_epoch=1,
    )


def holding(*entries: ActiveRun) -> UserRecord:
    return UserRecord("acme", "ada", active=entries)


def test_a_free_place_is_taken() -> None:
    decision = admit(EMPTY, entry("r1"), LIMIT)
    assert isinstance(decision, Admitted)
    assert decision.record(entry("r1")).find("r1") == entry("r1")


def test_a_user_at_the_limit_is_refused_and_told_by_whom() -> None:
    decision = admit(holding(entry("r1"), entry("r2")), entry("r3"), LIMIT)
    assert decision == Full((entry("r1"), entry("r2")))


def test_a_busy_thread_is_named_before_the_limit() -> None:
    decision = admit(holding(entry("r1", "t"), entry("r2")), entry("r3", "t"), LIMIT)
    assert decision == Busy(entry("r1", "t"))


def test_a_thread_that_others_wait_for_is_busy() -> None:
    queued = as_queued(entry("r1", "t"), "k")
    decision = admit(replace(EMPTY, queue=(queued,)), entry("r2", "t"), LIMIT)
    assert decision == Behind((queued,))


def test_a_place_is_not_taken_from_who_waits_for_one() -> None:
    queued = as_queued(entry("r1", "t"), "k")
    record = replace(holding(entry("r2")), queue=(queued,))
    assert admit(record, entry("r3"), LIMIT) == Full((entry("r2"),))


def test_who_is_to_end_holds_up_nobody() -> None:
    queued = replace(as_queued(entry("r1", "t"), "k"), ending="USER")
    record = replace(holding(entry("r2")), queue=(queued,))
    assert isinstance(admit(record, entry("r3", "t"), LIMIT), Admitted)


def test_the_same_request_finds_its_run_even_at_the_limit() -> None:
    decision = admit(holding(entry("r1"), entry("r2")), entry("r1", owner="e2"), LIMIT)
    assert decision == AlreadyActive(entry("r1"))


def test_the_same_request_id_with_another_body_is_refused() -> None:
    with pytest.raises(InvalidField, match="request_id"):
        admit(holding(entry("r1")), entry("r1", request_hash="1" * 32), LIMIT)


def test_a_place_is_freed_and_counted_once() -> None:
    used = Totals(runs=1, output_tokens=5)
    once = release(holding(entry("r1"), entry("r2")), entry("r1"), used)
    assert [each.run for each in once.active] == ["r2"]
    assert release(once, entry("r1"), used) == once
    assert once.totals == used


def test_who_left_a_place_does_not_free_another_of_the_same_run() -> None:
    again = holding(replace(entry("r1"), admitted_at_s=entry("r1").admitted_at_s + 1))
    assert release(again, entry("r1"), Totals(runs=1)) == again
    assert accepted(again, entry("r1"), "10.0.0.1:7102", "boot") == again


def test_an_accepted_run_can_be_reached_from_every_engine() -> None:
    record = accepted(holding(entry("r1"), entry("r2")), entry("r1"), "10.0.0.1:7102", "boot")
    found = record.find("r1")
    assert found is not None
    assert (found.agents_address, found.agents_boot) == ("10.0.0.1:7102", "boot")
    assert record.find("r2") == entry("r2")


def test_accepting_a_run_that_was_released_does_not_bring_it_back() -> None:
    assert accepted(EMPTY, entry("r1"), "10.0.0.1:7102", "boot") == EMPTY


def test_only_runs_of_engines_that_are_gone_are_adopted() -> None:
    record = holding(entry("r1", owner="gone"), entry("r2", owner="here"))
    adopted = adopt(record, {"gone"}, "new")
    assert [each.owner for each in adopted.active] == ["new", "here"]
    assert adopt(adopted, {"gone"}, "new") is adopted


def picked(runs: Collection[str], pick: int) -> str:
    return sorted(runs)[pick % len(runs)]


class TwoEngines(RuleBasedStateMachine):
    """Two engines that read and write one record as they please. The first reads before each change, the
    second has a stale view at times.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record = EMPTY
        self.revision = 0
        self.views: dict[str, tuple[UserRecord, int]] = {}
        self.running: set[str] = set()  # runs that agents really execute
        self.ended: set[str] = set()
        self.waiting: list[tuple[str, str]] = []  # runs with their threads, as they are to start
        self.marked: set[str] = set()
        self.fresh: dict[str, QueuedRun] = {}  # promoted, and not accepted by agents yet
        self.cancelled: dict[str, str] = {}  # of those that run, why they are to end
        self.attempts: dict[str, int] = {}  # of those that run, the one that agents have

    @initialize()
    def both_read(self) -> None:
        self.views = {"e1": (self.record, 0), "e2": (self.record, 0)}

    engines = st.sampled_from(["e1", "e2"])
    numbers = st.integers(min_value=0, max_value=9)
    threads = st.integers(min_value=0, max_value=2)
    picks = st.integers(min_value=0, max_value=9)

    def view(self, engine: str) -> UserRecord:
        if engine == "e1":
            self.views[engine] = (self.record, self.revision)
        return self.views[engine][0]

    def write(self, engine: str, wanted: UserRecord) -> bool:
        seen, revision = self.views[engine]
        if wanted == seen:
            return False
        if revision != self.revision:
            self.views[engine] = (self.record, self.revision)
            return False
        self.revision += 1
        self.record = wanted
        self.views[engine] = (wanted, self.revision)
        return True

    @rule(engine=engines)
    def reads(self, engine: str) -> None:
        self.views[engine] = (self.record, self.revision)

    @rule(engine=engines, number=numbers, thread=threads, waits=st.booleans())
    def starts(self, engine: str, number: int, thread: int, waits: bool) -> None:
        run = f"r{number}"
        if run in self.ended:
            return  # its record is there: the request finds that instead
        view = self.view(engine)
        wanted = entry(run, f"t{thread}", owner=engine)
        try:
            decision = admit(view, wanted, LIMIT)
        except InvalidField:
            return
        if isinstance(decision, Admitted):
            if self.write(engine, decision.record(wanted)):
                assert not self.is_known(run)
                assert wanted.thread not in {of for _, of in self.waiting}
                self.running.add(run)
                self.attempts[run] = 1
        elif waits and not isinstance(decision, AlreadyActive | AlreadyQueued):
            queued = enqueue(view, as_queued(wanted, f"kept-{run}"), engine, MOST_QUEUED)
            if isinstance(queued, Queued) and self.write(engine, queued.record):
                assert not self.is_known(run)
                self.waiting.append((run, wanted.thread))

    @rule(engine=engines)
    def promotes(self, engine: str) -> None:
        view = self.view(engine)
        able = startable(view, lambda _: LIMIT)
        if not able:
            return
        run, thread = able[0].run, able[0].thread
        record = promote(view, entry(run, thread, owner=engine), lambda _: LIMIT)
        assert record is not None
        busy = {each.thread for each in self.record.active}
        if self.write(engine, record):
            free = [each for each, of in self.waiting if of not in busy]
            assert run == free[0], "the longest waiting of those whose threads are free"
            self.waiting.remove((run, thread))
            self.running.add(run)
            self.attempts[run] = 1
            self.fresh[run] = able[0]

    @rule(engine=engines, number=numbers, thread=threads)
    def promotes_as_it_likes(self, engine: str, number: int, thread: int) -> None:
        """Whatever an engine asks for: only who may start does."""
        view = self.view(engine)
        record = promote(view, entry(f"r{number}", f"t{thread}", owner=engine), lambda _: LIMIT)
        assert (record is None) == (
            f"r{number}" not in {each.run for each in startable(view, lambda _: LIMIT)}
        )

    @precondition(lambda self: self.fresh)
    @rule(engine=engines, pick=picks)
    def agents_refuse(self, engine: str, pick: int) -> None:
        run = picked(self.fresh, pick)
        held = self.view(engine).find(run)
        queued = self.fresh[run]
        if held is not None and self.write(
            engine, give_back(self.view(engine), held, queued, engine)
        ):
            del self.fresh[run]
            self.running.discard(run)
            if run in self.cancelled:
                self.marked.add(run)
            else:
                self.waiting.insert(0, (run, queued.thread))

    @rule(engine=engines, number=numbers)
    def marks(self, engine: str, number: int) -> None:
        """Cancelled, interrupted or waiting for too long: it is not to start any more."""
        run = f"r{number}"
        if self.write(engine, mark(self.view(engine), [run], "USER", engine)):
            self.waiting = [each for each in self.waiting if each[0] != run]
            self.marked.add(run)

    @precondition(lambda self: self.running)
    @rule(engine=engines, pick=picks, reason=st.sampled_from(["USER", "INTERRUPTED"]))
    def cancels(self, engine: str, pick: int, reason: str) -> None:
        """Whichever engine is asked, and whether or not anybody tells agents or the run's owner."""
        run = picked(self.running, pick)
        held = self.view(engine).find(run)
        if held is not None and self.write(engine, to_cancel(self.view(engine), held, reason)):
            assert run not in self.cancelled, "the first reason stays"
            self.cancelled[run] = reason

    @precondition(lambda self: self.running)
    @rule(engine=engines, pick=picks)
    def agents_are_lost(self, engine: str, pick: int) -> None:
        """An engine would begin the run's next attempt, if it has the run."""
        run = picked(self.running, pick)
        held = self.view(engine).find(run)
        if held is not None and held.owner == engine:
            again = next_attempt(self.view(engine), held, held.deadline_s)
            if self.write(engine, again):
                assert run not in self.cancelled, "a run that was cancelled begins again"
                self.attempts[run] += 1
                self.fresh.pop(run, None)

    @precondition(lambda self: self.marked - self.ended)
    @rule(pick=picks)
    def a_marked_run_ends_in_the_log(self, pick: int) -> None:
        self.ended.add(picked(self.marked - self.ended, pick))

    @rule(engine=engines, number=numbers)
    def drops(self, engine: str, number: int) -> None:
        run = f"r{number}"
        if run in self.ended:
            self.write(engine, drop(self.view(engine), run, Totals(runs=1)))

    @rule(engine=engines, number=numbers)
    def interrupts_and_starts(self, engine: str, number: int) -> None:
        """on_busy interrupt: the holder's ending first, then its release, then the start."""
        view = self.view(engine)
        decision = admit(view, entry(f"r{number}", "t0", owner=engine), LIMIT)
        if isinstance(decision, Busy) and decision.holder.run in self.running:
            self.end(decision.holder.run)
            self.write(engine, release(view, decision.holder, Totals(runs=1)))

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def a_run_ends_in_the_log(self, pick: int) -> None:
        self.end(picked(self.running, pick))

    @rule(engine=engines, number=numbers)
    def releases(self, engine: str, number: int) -> None:
        run = f"r{number}"
        view = self.view(engine)
        held = view.find(run)
        if run in self.ended and held is not None:
            self.write(engine, release(view, held, Totals(runs=1)))

    @rule(engine=engines)
    def adopts_the_other(self, engine: str) -> None:
        gone = {"e1", "e2"} - {engine}
        self.write(engine, adopt(self.view(engine), gone, engine))

    def over(self) -> set[tuple[str, str]]:
        return {each for each in self.cancelled.items() if each[0] in self.ended}

    def is_known(self, run: str) -> bool:
        waits = run in {each for each, _ in self.waiting}
        return waits or run in self.running | self.ended | self.marked

    def end(self, run: str) -> None:
        self.running.discard(run)
        self.fresh.pop(run, None)
        self.ended.add(run)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert len(self.running) <= LIMIT
        assert len(self.record.active) <= LIMIT

    @invariant()
    def what_runs_has_a_place(self) -> None:
        assert self.running <= {each.run for each in self.record.active}

    @invariant()
    def a_cancel_is_never_forgotten(self) -> None:
        places = {each.run: each for each in self.record.active if each.run in self.running}
        assert {run: each.attempt for run, each in places.items()} == {
            run: self.attempts[run] for run in places
        }
        to_end = {run: each.cancel for run, each in places.items() if each.cancel}
        to_end |= {each.run: each.ending for each in self.record.queue if each.ending}
        assert self.cancelled.items() - self.over() <= to_end.items()

    @invariant()
    def one_run_a_thread_and_one_place_a_run(self) -> None:
        assert len({each.thread for each in self.record.active}) == len(self.record.active)
        assert len({each.run for each in self.record.active}) == len(self.record.active)

    @invariant()
    def the_queue_is_bounded_and_holds_nobody_twice(self) -> None:
        runs = [each.run for each in self.record.queue]
        assert len(runs) <= MOST_QUEUED + LIMIT  # those that agents refused come back
        assert len({*runs, *(each.run for each in self.record.active)}) == len(runs) + len(
            self.record.active
        )

    @invariant()
    def whoever_waits_stands_in_the_queue_in_order(self) -> None:
        waiting = [(each.run, each.thread) for each in self.record.queue if not each.ending]
        assert waiting == self.waiting
        assert self.marked - self.ended <= {each.run for each in self.record.queue if each.ending}

    @invariant()
    def every_ended_run_counts_once(self) -> None:
        holders = [each.run for each in self.record.active]
        holders += [each.run for each in self.record.queue]
        waiting = sum(1 for run in holders if run in self.ended)
        assert self.record.totals.runs == len(self.ended) - waiting


TwoEngines.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_two_engines_never_admit_a_third_run_and_lose_nobody = TwoEngines.TestCase


def test_however_two_engines_go_on_for_long() -> None:
    """As above, and far from the beginning, where Hypothesis seldom comes."""
    for seed in range(150):
        chance = Random(seed)
        machine = TwoEngines()
        machine.both_read()
        for _ in range(80):
            walk(machine, chance)
            for check in CHECKS:
                check(machine)


def walk(machine: TwoEngines, chance: Random) -> None:
    """One step of either engine, or of what is around them."""
    engine, run = chance.choice(["e1", "e1", "e2"]), chance.randrange(40)
    steps: list[Callable[[], None]] = [
        lambda: machine.starts(engine, run, chance.randrange(3), chance.random() < 0.8),
        lambda: machine.starts(engine, run, chance.randrange(3), chance.random() < 0.8),
        lambda: machine.starts(engine, run, chance.randrange(3), chance.random() < 0.8),
        lambda: machine.promotes(engine),
        lambda: machine.promotes(engine),
        lambda: machine.promotes_as_it_likes(engine, run, chance.randrange(3)),
        lambda: machine.marks(engine, run),
        lambda: machine.releases(engine, machine_run(machine.ended, chance)),
        lambda: machine.drops(engine, machine_run(machine.marked, chance)),
        lambda: machine.adopts_the_other(engine),
        lambda: machine.reads(engine),
    ]
    if machine.running:
        steps.append(lambda: machine.a_run_ends_in_the_log(chance.randrange(9)))
        steps.append(lambda: machine.cancels(engine, chance.randrange(9), "USER"))
        steps.append(lambda: machine.agents_are_lost(engine, chance.randrange(9)))
    if machine.fresh:
        steps.append(lambda: machine.agents_refuse(engine, chance.randrange(9)))
    if machine.marked - machine.ended:
        steps.append(lambda: machine.a_marked_run_ends_in_the_log(chance.randrange(9)))
    chance.choice(steps)()


def machine_run(runs: set[str], chance: Random) -> int:
    return int(chance.choice(sorted(runs))[1:]) if runs else 0


CHECKS: list[Callable[[TwoEngines], None]] = [
    TwoEngines.never_more_than_the_limit,
    TwoEngines.what_runs_has_a_place,
    TwoEngines.a_cancel_is_never_forgotten,
    TwoEngines.one_run_a_thread_and_one_place_a_run,
    TwoEngines.the_queue_is_bounded_and_holds_nobody_twice,
    TwoEngines.whoever_waits_stands_in_the_queue_in_order,
    TwoEngines.every_ended_run_counts_once,
]


def test_the_next_attempt_is_nobodys_until_agents_have_it() -> None:
    lost = replace(entry("r1"), attempts=3, agents_address="a:1", agents_boot="b1")
    record = next_attempt(holding(lost, entry("r2")), lost, 250.0)
    (again, other) = record.active
    assert (again.attempt, again.agents_address, again.agents_boot) == (2, "", "")
    assert again.deadline_s == 250.0
    assert again.admitted_at_s == lost.admitted_at_s, "the same place"
    assert other == entry("r2")
    accepted_again = accepted(record, again, "a:2", "b2")
    assert next_attempt(accepted_again, lost, 250.0) == accepted_again, "it was begun before"


def test_a_run_that_is_to_end_keeps_its_first_reason_and_begins_no_attempt() -> None:
    lost = replace(entry("r1"), attempts=3)
    marked = to_cancel(holding(lost, entry("r2")), lost, "INTERRUPTED")
    assert [each.cancel for each in marked.active] == ["INTERRUPTED", ""]
    assert to_cancel(marked, lost, "USER") is marked
    assert next_attempt(marked, lost, 250.0) is marked
    assert to_cancel(EMPTY, lost, "USER") is EMPTY
    (adopted, _) = adopt(accepted(marked, lost, "a:1", "b"), {"e1"}, "e2").active
    assert adopted.cancel == "INTERRUPTED"


def test_an_engine_that_lost_its_runs_begins_no_attempt() -> None:
    lost = entry("r1", owner="e1")
    adopted = adopt(holding(lost), {"e1"}, "e2")
    assert next_attempt(adopted, lost, 250.0) == adopted
    assert next_attempt(EMPTY, lost, 250.0) == EMPTY


def test_an_engine_that_has_its_run_again_does_not_hand_over_what_another_has() -> None:
    lost = entry("r1", owner="e1")
    (elsewhere,) = adopt(holding(lost), {"e1"}, "e2").active
    record = next_attempt(holding(elsewhere), elsewhere, 250.0)
    assert begun(record, elsewhere) == record.find("r1")
    back = adopt(record, {"e2"}, "e1")
    assert next_attempt(back, lost, 250.0) == back
    assert begun(back, lost) is None
