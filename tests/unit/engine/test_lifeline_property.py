"""However a run is heard, asked about, cancelled and looked at, and however long this process stands
still: it is ended only for what was watched, for the first reason, and in the end for certain.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from factorychain_engine.lifeline import (
    MAX_STEP_S,
    EndReason,
    LifeLimits,
    Lifeline,
    Settle,
    Sign,
    Step,
    Wait,
)

LIMITS = LifeLimits(idle_s=60, lost_s=30, cancel_grace_s=20, ask_max_s=50)
LIFETIME_S = 120.0
FROM_OUTSIDE = st.sampled_from([EndReason.USER, EndReason.INTERRUPTED, EndReason.QUEUE_TIMEOUT])


class Asking:
    """What is true of a run that asks its user: for how long it has waited, heard or not."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self.since_s: float | None = None

    def at(self, now_s: float) -> float:
        return self.waited_s + (0.0 if self.since_s is None else now_s - self.since_s)

    def turn(self, now_s: float) -> None:
        self.waited_s = self.at(now_s)
        self.since_s = now_s if self.since_s is None else None


class LifelineMachine(RuleBasedStateMachine):
    """A run, its agents and the engine that looks after it, on a clock that goes on between steps."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.asking = Asking()
        self.following = True  # its agents say at once when it asks, and when it is answered
        self.heard_at_s = self.looked_at_s = 0.0
        self.quiet_at_s = 0.0  # the agent's last sign of life, as its replica said
        self.silent_s = self.idle_s = 0.0  # of what this process has watched
        self.reason: EndReason | None = None
        self.told_at_s: float | None = None
        self.watched_since_told_s = 0.0

    @initialize(waited_s=st.sampled_from([None, 0.0, 40.0]))
    def begin(self, waited_s: float | None) -> None:
        """Here; or elsewhere, so that it may have waited for its user."""
        self.following = waited_s is None
        self.asking.waited_s = waited_s or 0.0
        self.lifeline = Lifeline(LIFETIME_S, LIMITS, self.now_s, known=self.following)

    # --- time ---

    @rule(halves=st.integers(1, 40))
    def time_goes_by(self, halves: int) -> None:
        self.now_s += halves / 2

    @rule(by_s=st.sampled_from([31.0, 61.0, 200.0]))
    def stand_still(self, by_s: float) -> None:
        """Stopped, swapped or starved."""
        self.now_s += by_s

    # --- the run and its agents ---

    @rule()
    def ask_or_answer(self) -> None:
        self.asking.turn(self.now_s)
        if self.following:
            self.hear(quiet_s=0.0)

    @rule(quiet_s=st.sampled_from([0.0, 0.0, 10.0, 58.0, 60.0]))
    def hear(self, quiet_s: float) -> None:
        self.following = True
        waiting = self.asking.since_s is not None
        self.lifeline.heard(self.now_s, Sign(quiet_s, self.asking.at(self.now_s), waiting))
        self._heard(quiet_s)

    @rule()
    def attach(self) -> None:
        """Its replica answers, and has not said yet how the run is."""
        self.lifeline.heard(self.now_s)
        self._heard(0.0)

    def _heard(self, quiet_s: float) -> None:
        self.heard_at_s, self.quiet_at_s = self.now_s, self.now_s - quiet_s
        self.silent_s, self.idle_s = 0.0, quiet_s

    @rule()
    def lose_the_stream(self) -> None:
        self.following = False
        self.lifeline.unheard()

    @rule(reason=FROM_OUTSIDE)
    def cancel(self, reason: EndReason) -> None:
        self.lifeline.cancel(reason)
        self.reason = self.reason or reason

    # --- the engine ---

    @rule()
    def look(self) -> None:
        self._look()

    @rule(seconds=st.integers(5, 30))
    def watch(self, seconds: int) -> None:
        """As the clean-up does while nothing is wrong with this process."""
        for _ in range(seconds):
            self.now_s += 1
            self._look()

    def _look(self) -> Step:
        since_s = max(self.looked_at_s, self.heard_at_s)
        self.silent_s += min(self.now_s - since_s, MAX_STEP_S)
        self.idle_s += min(self.now_s - since_s, MAX_STEP_S)
        if self.told_at_s is not None:
            self.watched_since_told_s += min(self.now_s - self.looked_at_s, MAX_STEP_S)
        self.looked_at_s = self.now_s
        step = self.lifeline.look(self.now_s)
        self._check(step)
        return step

    # --- what always holds ---

    def _check(self, step: Step) -> None:
        if isinstance(step, Wait):
            assert self.reason is None, "it is to end, and nothing is done"
            return
        if self.reason is not None:
            assert step.reason is self.reason, "the first reason stays"
        elif step.reason is EndReason.AGENT_LOST:
            assert isinstance(step, Settle)
        else:
            self._check_overdue(step.reason)
            self.reason = step.reason
        if isinstance(step, Settle):
            self._check_settled()
        elif self.told_at_s is None:
            self.told_at_s = self.now_s

    def _check_overdue(self, reason: EndReason) -> None:
        if reason is EndReason.DEADLINE:
            assert self.following, "who knows whether it waits for its user?"
            waited_s = min(self.asking.at(self.now_s), LIMITS.ask_max_s)
            assert self.now_s >= LIFETIME_S + waited_s
        else:
            assert reason is EndReason.UNRESPONSIVE
            assert self.now_s - self.quiet_at_s >= LIMITS.idle_s
            assert self.idle_s >= LIMITS.idle_s, "not watched"

    def _check_settled(self) -> None:
        """Nobody has said anything for long, or agents were told to end it and had the time to."""
        if self.silent_s >= LIMITS.lost_s:
            assert self.now_s - self.heard_at_s >= LIMITS.lost_s
            return
        assert self.told_at_s is not None, f"settled after a silence of {self.silent_s} s"
        assert self.watched_since_told_s >= LIMITS.cancel_grace_s

    @invariant()
    def the_first_reason_stays(self) -> None:
        assert self.lifeline.cancel_reason is self.reason

    @invariant()
    def waiting_moves_the_deadline_up_to_its_maximum(self) -> None:
        moved_s = self.lifeline.deadline_s(self.now_s) - LIFETIME_S
        assert 0 <= moved_s <= LIMITS.ask_max_s
        if self.following:
            assert moved_s == min(self.asking.at(self.now_s), LIMITS.ask_max_s)

    def teardown(self) -> None:
        """A run that is heard ends by its deadline and the grace; one of which nothing is heard, sooner."""
        until_s = self.now_s + LIMITS.lost_s
        if self.following:
            until_s = max(self.now_s, LIFETIME_S + LIMITS.ask_max_s) + LIMITS.cancel_grace_s
        step = self._look()
        while not isinstance(step, Settle):
            assert self.now_s <= until_s + 1, "it goes on for ever"
            self.now_s += 1
            if self.following:
                self.hear(quiet_s=0.0)
            step = self._look()


TestLifeline = LifelineMachine.TestCase
TestLifeline.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
