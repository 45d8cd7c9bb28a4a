"""However outages come, overlap and end: only what was proved works, every outage has all its attempts,
and nothing stays down once it answers.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from factorychain_bridge.integration import Change, Integration, IntegrationState

UNINITIALIZED, INITIALIZING, ACTIVE, DEGRADED, FAILED = IntegrationState
DELAY_S = 1.0
LEGAL = {
    (UNINITIALIZED, INITIALIZING),
    (INITIALIZING, ACTIVE),
    (INITIALIZING, DEGRADED),
    (ACTIVE, DEGRADED),
    (DEGRADED, ACTIVE),
    (DEGRADED, FAILED),
    (FAILED, ACTIVE),
}


class IntegrationMachine(RuleBasedStateMachine):
    """An integration as it is driven: told of losses, and of probes made early or at their time."""

    @initialize(attempts=st.integers(1, 4))
    def begin(self, attempts: int) -> None:
        self.now_s = 100.0
        self.max_attempts = attempts
        self.away = False  # what is true
        self.proved = False  # the last probe succeeded, and nothing was reported lost since
        self.tried = 0  # attempts at their time in this outage
        self.changes: list[Change] = []
        self.causes: list[str] = ["starting"]
        self.core = Integration(attempts=attempts, delay_s=DELAY_S, now_s=lambda: self.now_s)
        self.core.on_change(self.changes.append)
        self.core.begin()

    # --- what is needed ---

    @rule()
    def goes(self) -> None:
        self.away = True

    @rule()
    def comes_back(self) -> None:
        self.away = False

    # --- what is told ---

    @rule(cause=st.sampled_from(["NATS is away", "the log does not answer"]))
    def a_loss_is_noticed(self, cause: str) -> None:
        self.proved = False
        self.causes.append(cause)
        self.core.lost(cause)

    @rule()
    def probe_early(self) -> None:
        """A connection came back, or somebody suspects an outage."""
        self.now_s += 0.1
        if self.away:
            self.a_loss_is_noticed("a probe failed")
        else:
            self.works()

    @precondition(lambda self: self.core.next_delay_s is not None)
    @rule()
    def attempt_at_its_time(self) -> None:
        delay_s = float(DELAY_S * 2 ** min(self.tried, self.max_attempts - 1))
        assert self.core.next_delay_s == delay_s
        self.now_s += delay_s
        if not self.away:
            self.works()
            return
        self.causes.append("still away")
        self.core.attempt_failed("still away")
        if self.tried < self.max_attempts:
            self.tried += 1

    def works(self) -> None:
        self.proved, self.tried = True, 0
        self.causes.append("everything answers")
        self.core.works("everything answers")

    # --- what always holds ---

    @invariant()
    def only_what_was_proved_is_active(self) -> None:
        assert self.core.active == self.proved

    @invariant()
    def an_outage_has_all_its_attempts_before_it_has_failed(self) -> None:
        assert self.core.attempts == self.tried
        assert self.core.failed == (self.tried == self.max_attempts)

    @invariant()
    def a_failed_one_is_tried_on(self) -> None:
        outage = self.core.state in (DEGRADED, FAILED)
        assert (self.core.next_delay_s is not None) == outage

    @invariant()
    def changes_are_legal_and_have_a_cause(self) -> None:
        assert self.core.transitions == len(self.changes)
        last = self.changes[-1]
        assert (last.before, last.after) in LEGAL
        assert (self.core.state, self.core.cause) == (last.after, last.cause)
        assert any(cause in last.cause for cause in self.causes)
        assert self.core.since_s <= self.now_s

    def teardown(self) -> None:
        """It comes back by itself, whatever state it is in."""
        if not hasattr(self, "core"):
            return
        self.comes_back()
        if self.core.next_delay_s is not None:
            self.attempt_at_its_time()
        else:
            self.probe_early()
        assert self.core.active


TestIntegration = IntegrationMachine.TestCase
TestIntegration.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
