"""What a run came to whose process is gone."""

from __future__ import annotations

import signal

import pytest

from factorychain._instance.spec import Outcome, OutcomeKind
from factorychain.usage import Usage
from factorychain_agents.process.child import Exit
from factorychain_agents.process.endings import outcome_of_death, with_text


@pytest.mark.parametrize(
    ("how", "words", "memory_short", "reason"),
    [
        (Exit(0), "", False, "CRASHED"),
        (Exit(3), "MemoryError", False, "CRASHED"),
        (Exit(None, signal.SIGSEGV), "", False, "CRASHED"),
        (Exit(None, signal.SIGXCPU, cpu_s=1.0), "", False, "CPU_LIMIT"),
        (Exit(None, signal.SIGKILL, cpu_s=11.0), "", False, "CPU_LIMIT"),
        (Exit(None, signal.SIGKILL, cpu_s=1.0), "", False, "CRASHED"),
        (Exit(None, signal.SIGKILL, cpu_s=1.0), "", True, "MEMORY_LIMIT"),
        (Exit(None, signal.SIGABRT), "terminate: std::bad_alloc", False, "MEMORY_LIMIT"),
        (Exit(None), "", False, "CRASHED"),
    ],
)
def test_the_reason_is_the_limit_that_was_reached(
    how: Exit, words: str, memory_short: bool, reason: str
) -> None:
    outcome = outcome_of_death(how, words, 10.0, memory_short=memory_short)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, reason)
    assert outcome.text


def test_a_limit_that_the_instance_names_is_explained_to_users() -> None:
    told = with_text(Outcome(OutcomeKind.FAILED, reason="CPU_LIMIT", usage=Usage(requests=2)))
    assert "processor time" in told.text
    assert told.usage.requests == 2


def test_an_agents_own_words_stay_as_they_are() -> None:
    own = Outcome(OutcomeKind.FAILED, reason="BUSY", text="try later")
    assert with_text(own) is own


def test_an_exit_is_told_in_words() -> None:
    assert str(Exit(None, signal.SIGSEGV)) == "by SIGSEGV"
    assert str(Exit(3)) == "with status 3"
    assert str(Exit(None, 63)) == "by signal 63"
