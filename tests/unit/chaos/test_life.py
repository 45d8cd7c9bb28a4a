"""What counts as a good run of chaos: nothing broken, nothing failed, and something was tried."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.faults import FULL, KINDS
from tests.chaos.findings import Findings
from tests.chaos.life import LONG_S, FaultImpossible, Life, Outcome, untried
from tests.chaos.options import Options, parse
from tests.chaos.watchdog import Watchdog
from tests.unit.chaos.conversation import Conversation


def test_a_run_that_broke_nothing_or_failed_otherwise_is_not_good(tmp_path: Path) -> None:
    findings = Conversation().check(tmp_path)
    assert Outcome(findings, faults=1).good
    assert not Outcome(findings, faults=0).good
    assert not Outcome(findings, faults=1, failures=["a user came to no end"]).good
    findings.breaks("losses", "one")
    assert not Outcome(findings, faults=1).good


def test_a_long_run_has_to_have_had_an_answer_to_a_question_that_was_open_while_something_broke() -> (
    None
):
    assert untried(Findings(answers=9), LONG_S - 1) == []
    assert len(untried(Findings(answers=9), LONG_S)) == 1
    assert untried(Findings(answers=9, answers_across=1), LONG_S) == []


async def _without_tmpfs(folder: Path, options: Options) -> tuple[Life, list[str]]:
    told: list[str] = []
    watchdog = Watchdog(asyncio.get_running_loop())
    watchdog.rest()
    return Life(options.forms[0], options, 1.0, folder, watchdog, told.append), told


async def test_a_full_disk_that_cannot_be_had_is_named_and_the_other_faults_are_done(
    tmp_path: Path,
) -> None:
    life, told = await _without_tmpfs(tmp_path, parse(["--seconds", "1"]))
    life.skip_full_disk()
    assert life.skipped == (FULL,)
    assert set(life.options.kinds) == set(KINDS) - {FULL}
    assert told[0].startswith("NOT TRIED")


async def test_a_full_disk_that_was_asked_for_and_cannot_be_had_ends_it(tmp_path: Path) -> None:
    life, _ = await _without_tmpfs(tmp_path, parse(["--faults", "kill,full disk"]))
    with pytest.raises(FaultImpossible):
        life.skip_full_disk()
