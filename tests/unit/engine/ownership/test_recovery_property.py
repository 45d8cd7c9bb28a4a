"""However engines die, are cut off from storage and come, and storage goes: who lives and was seen is not
given up, no run stays with the dead, and one attempt is handed to agents once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from factorychain_engine.admission.record import (
    ActiveRun,
    UserRecord,
    adopt,
    begun,
    next_attempt,
    release,
)
from factorychain_engine.ownership.roll import EngineRoll

TTL_S = 15
BEAT_S = TTL_S // 3
GRACE_S = 10.0
PASS_S = 3
RUNS = ("r1", "r2")
FATES = st.sampled_from(["done", "done", "unanswered", "unsent"])


@dataclass
class Engine:
    """One engine process: what it knows, and what is true of its looks."""

    name: str
    roll: EngineRoll = field(init=False)
    linked: bool = True  # to storage
    beat_at_s: int = 0
    tried_at_s: int = 0
    cut_at_s: int = -1  # when it was cut off last
    beats: bool = True
    held: dict[str, ActiveRun] = field(default_factory=dict)  # what it looks after
    taking: dict[str, ActiveRun] = field(default_factory=dict)  # next attempts of these
    looks: list[tuple[int, frozenset[str]]] = field(default_factory=list)  # since one that failed

    def __post_init__(self) -> None:
        self.roll = EngineRoll(self.name, GRACE_S)


class EnginesMachine(RuleBasedStateMachine):
    """Engines around the record of one user, whose agents are lost again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0
        self.up = True  # storage
        self.record = UserRecord("acme", "ada")
        self.engines: dict[str, Engine] = {}
        self.expires_s: dict[str, int] = {}  # the heartbeats in storage
        self.started = 0
        self.handed: set[tuple[str, int]] = set()
        for _ in range(3):
            self.come()
            self.time_goes_by(2)
        for _ in range(3):  # each at its own times
            self.come()
            self.time_goes_by(2)
        self.record = UserRecord("acme", "ada", active=(begin("r1", "e1"), begin("r2", "e2")))
        for each in self.record.active:
            self.engines[each.owner].held[each.run] = each

    # --- what happens to them ---

    @precondition(lambda self: len(self.engines) < 3 and self.up)
    @rule()
    def come(self) -> None:
        self.started += 1
        engine = Engine(f"e{self.started}")
        self.engines[engine.name] = engine
        self.beat(engine)

    @precondition(lambda self: len(self.engines) > 1)
    @rule(pick=st.integers(0, 2))
    def die(self, pick: int) -> None:
        del self.engines[self.picked(pick).name]

    @rule(pick=st.integers(0, 2))
    def cut_or_mend(self, pick: int) -> None:
        engine = self.picked(pick)
        engine.linked = not engine.linked
        engine.cut_at_s = self.now_s

    @rule(pick=st.integers(0, 2), seconds=st.sampled_from([18, 45]))
    def is_cut_off_for(self, pick: int, seconds: int) -> None:
        """Its heartbeat expires, and perhaps it is given up meanwhile."""
        self.cut_or_mend(pick)
        self.time_goes_by(seconds)
        self.cut_or_mend(pick)
        self.time_goes_by(BEAT_S)

    @precondition(lambda self: self.up)
    @rule(seconds=st.sampled_from([5, 16, 30]))
    def storage_is_away_for(self, seconds: int) -> None:
        """Long enough for every heartbeat to expire, perhaps."""
        self.storage_goes_or_comes()
        self.time_goes_by(seconds)
        self.storage_goes_or_comes()
        self.time_goes_by(PASS_S)

    @rule()
    def storage_goes_or_comes(self) -> None:
        self.up = not self.up

    @rule(seconds=st.sampled_from([1, 4, 12, 40, 40]))
    def time_goes_by(self, seconds: int) -> None:
        """Heartbeats are renewed, and records looked through, at each engine's own times."""
        for _ in range(seconds):
            self.now_s += 1
            for number, engine in enumerate(list(self.engines.values())):
                if self.now_s - engine.tried_at_s >= BEAT_S:
                    self.beat(engine)
                if (self.now_s + number) % PASS_S == 0:
                    self.look(engine)

    @rule(pick=st.integers(0, 2))
    def fail_midway(self, pick: int) -> None:
        """Storage is away for a moment while the records are read."""
        engine = self.picked(pick)
        engine.roll.look(None, can_renew=self.now_s - engine.beat_at_s < TTL_S)
        engine.looks.clear()

    @rule(pick=st.integers(0, 2), seconds=st.sampled_from([18, 45]))
    def its_heartbeat_fails_for(self, pick: int, seconds: int) -> None:
        """It reads all the same."""
        engine = self.picked(pick)
        engine.beats, engine.cut_at_s = False, self.now_s
        self.time_goes_by(seconds)
        engine.beats = True
        self.time_goes_by(BEAT_S)

    def picked(self, pick: int) -> Engine:
        return list(self.engines.values())[pick % len(self.engines)]

    def reaches(self, engine: Engine) -> bool:
        return self.up and engine.linked

    def beat(self, engine: Engine) -> None:
        engine.tried_at_s = self.now_s
        if self.reaches(engine) and engine.beats:
            engine.beat_at_s = self.now_s
            self.expires_s[engine.name] = self.now_s + TTL_S

    # --- the clean-up ---

    def look(self, engine: Engine) -> None:
        reads, can_renew = self.reaches(engine), self.now_s - engine.beat_at_s < TTL_S
        present = [name for name, at_s in self.expires_s.items() if at_s > self.now_s]
        engine.roll.look(present if reads else None, can_renew=can_renew)
        if not (reads and can_renew):
            engine.looks.clear()
        if not reads:
            return
        engine.looks.append((self.now_s, frozenset(present)))
        owners = {each.owner for each in self.record.active}
        gone = engine.roll.gone(owners - {engine.name}, self.now_s)
        for name in gone:
            self.check_gone(engine, name)
        before = self.record
        self.record = adopt(before, gone, engine.name)
        self.check_adopted(before, gone, engine.name)
        for each in self.record.active:
            if each.owner == engine.name:
                engine.held.setdefault(each.run, each)
        engine.roll.forget(owners)

    def check_gone(self, engine: Engine, name: str) -> None:
        missed = []
        for at_s, present in reversed(engine.looks):
            if name in present:
                break
            missed.append(at_s)
        assert missed, f"{name} is given up without a look"
        assert self.now_s - missed[-1] >= GRACE_S, f"{name} was missed only since {missed[-1]}"
        other = self.engines.get(name)
        assert other is None or other.cut_at_s >= 0, "it lives, and was never cut off"

    def check_adopted(self, before: UserRecord, gone: frozenset[str], name: str) -> None:
        assert len(before.active) == len(self.record.active)
        for was, now in zip(before.active, self.record.active, strict=True):
            assert (was.run, was.attempt) == (now.run, now.attempt)
            assert now.owner == (name if was.owner in gone else was.owner)

    # --- attempts ---

    @rule()
    def all_agents_are_lost(self) -> None:
        for pick in range(len(self.engines)):
            for run in RUNS:
                self.agents_are_lost(pick, run)

    @rule(pick=st.integers(0, 2), run=st.sampled_from(RUNS))
    def agents_are_lost(self, pick: int, run: str) -> None:
        """As far as an engine knows, that looks after a run or believes so."""
        engine = self.picked(pick)
        if run in engine.held:
            engine.taking.setdefault(run, engine.held[run])

    @rule()
    def all_take_the_next(self) -> None:
        for pick in range(len(self.engines)):
            for run in RUNS:
                self.take_the_next(pick, run, "done")

    @rule(pick=st.integers(0, 2), run=st.sampled_from(RUNS), fate=FATES)
    def take_the_next(self, pick: int, run: str, fate: str) -> None:
        """Repeated until storage has answered, however long that takes."""
        engine = self.picked(pick)
        if run not in engine.taking or not self.reaches(engine) or fate == "unsent":
            return
        entry = engine.taking[run]
        self.record = next_attempt(self.record, entry, deadline_s=300.0)
        if fate == "unanswered":
            return
        del engine.taking[run]
        found = begun(self.record, entry)
        if found is None:
            del engine.held[run]  # another engine looks after it
            return
        assert found.owner == engine.name
        assert (run, found.attempt) not in self.handed, "agents have this attempt already"
        self.handed.add((run, found.attempt))
        engine.held[run] = found

    @precondition(lambda self: self.record.active)
    @rule(run=st.sampled_from(RUNS))
    def end(self, run: str) -> None:
        found = self.record.find(run)
        if found is not None and found.attempt > 3:
            self.record = release(self.record, found)
            assert begun(self.record, replace(found, attempt=found.attempt - 1)) is None

    @rule(pick=st.integers(0, 2))
    def lose_a_run_and_have_it_again(self, pick: int) -> None:
        """While it cannot take the next attempt, others do; and then they are cut off."""
        one = self.picked(pick)
        others = [each for each in self.engines.values() if each is not one]
        self.all_agents_are_lost()
        for away in ([one], others):
            for each in self.engines.values():
                each.linked = each not in away
                each.cut_at_s = self.now_s
            self.time_goes_by(45)
            if away != others:
                self.all_agents_are_lost()
            self.all_take_the_next()

    # --- what always holds ---

    @invariant()
    def attempts_are_handed_in_order(self) -> None:
        for each in self.record.active:
            numbers = {number for run, number in self.handed if run == each.run}
            assert max(numbers, default=1) <= each.attempt

    def teardown(self) -> None:
        """When everything is reachable again, whoever lives has all runs."""
        self.up = True
        for engine in self.engines.values():
            engine.linked = True
            engine.cut_at_s = self.now_s
        self.time_goes_by(2 * TTL_S + int(GRACE_S) + 2 * PASS_S)
        for each in self.record.active:
            assert each.owner in self.engines
            assert each.run in self.engines[each.owner].held


def begin(run: str, owner: str) -> ActiveRun:
    return ActiveRun(
        run=run,
        thread=f"t-{run}",
        agent="researcher",
        request_hash="0" * 32,
        owner=owner,
        admitted_at_s=1.0,
        deadline_s=301.0,
        base=0,
        base_seq=0,
        base_epoch=1,
        attempts=100,
    )


TestEngines = EnginesMachine.TestCase
TestEngines.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
