"""What counts as a good run of chaos: nothing broken, nothing failed, and something was tried."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.driver import Injected
from tests.chaos.faults import FULL, KILL, KINDS, Fault, all_faults
from tests.chaos.findings import Findings
from tests.chaos.forms import LAYERS, REPLICATED, SINGLE, Form
from tests.chaos.life import LONG_S, FaultImpossible, Life, Outcome, untried
from tests.chaos.options import Options, parse
from tests.chaos.watchdog import Watchdog
from tests.unit.chaos.conversation import Conversation

ANSWERED = Findings(answers=9, answers_across=1)


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
    assert untried(Findings(answers=9), [], [], LONG_S - 1) == []
    assert len(untried(Findings(answers=9), [], [], LONG_S)) == 1
    assert untried(ANSWERED, [], [], LONG_S) == []


@pytest.mark.parametrize("form", [SINGLE, REPLICATED])
def test_a_long_run_has_to_have_hit_every_layer_and_with_every_kind(form: Form) -> None:
    every = all_faults(form, KINDS)
    hits = [Injected(Fault(kind, where), 0.0, runs=1) for kind, where in every]
    assert untried(ANSWERED, hits, every, LONG_S) == []
    for layer in LAYERS:
        idle = [replace(each, runs=0) if _leads_to(each, layer) else each for each in hits]
        assert untried(ANSWERED, idle, every, LONG_S - 1) == []
        assert f"no fault at the layer {layer} counted" in untried(ANSWERED, idle, every, LONG_S)
    for kind in {kind for kind, _ in every}:
        idle = [replace(each, hit=each.fault.kind != kind) for each in hits]
        assert untried(ANSWERED, idle, every, LONG_S) == [f"no fault of the kind {kind} counted"]


def test_a_long_run_needs_to_have_hit_only_what_it_was_to_break() -> None:
    every = all_faults(SINGLE, (KILL,), ("agents",))
    hit = Injected(Fault(KILL, "agents"), 0.0, runs=1)
    assert untried(ANSWERED, [hit], every, LONG_S) == []


def _leads_to(one: Injected, layer: str) -> bool:
    return one.fault.where.endswith((layer, *(f"{layer}-{each}" for each in range(3))))


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
