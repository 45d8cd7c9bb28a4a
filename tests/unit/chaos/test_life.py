"""What counts as a good run of chaos: nothing broken, nothing failed, and something was tried."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.life import Outcome
from tests.unit.chaos.conversation import Conversation


def test_a_run_that_broke_nothing_or_failed_otherwise_is_not_good(tmp_path: Path) -> None:
    findings = Conversation().check(tmp_path)
    assert Outcome(findings, faults=1).good
    assert not Outcome(findings, faults=0).good
    assert not Outcome(findings, faults=1, failures=["a user came to no end"]).good
    findings.breaks("losses", "one")
    assert not Outcome(findings, faults=1).good
