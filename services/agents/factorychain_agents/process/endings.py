"""What a run came to whose process ended without saying so: decided from how it ended.

Invariant: whatever the process did, there is an outcome, and its reason is the limit that was reached if
one was.
"""

from __future__ import annotations

import signal
from typing import Final

from factorychain._instance.ending import cancelled
from factorychain._instance.spec import Outcome, OutcomeKind
from factorychain._process.instance import LIMITS
from factorychain.usage import Usage
from factorychain_agents.process.child import Exit

_OUT_OF_MEMORY: Final = ("MemoryError", "bad_alloc", "Cannot allocate memory", "out of memory")


def outcome_of_death(how: Exit, words: str, cpu_s: float, *, memory_short: bool) -> Outcome:
    """The outcome of a run whose process is gone.

    Args:
        how: how it ended.
        words: its last ones, from stderr.
        cpu_s: the processor time that it was allowed.
        memory_short: whether the kernel killed something for want of memory meanwhile.
    """
    return cancelled(_reason(how, words, cpu_s, memory_short), Usage())


def _reason(how: Exit, words: str, cpu_s: float, memory_short: bool) -> str:
    if how.signal == signal.SIGXCPU:
        return "CPU_LIMIT"
    if how.signal == signal.SIGKILL and how.cpu_s >= cpu_s:
        return "CPU_LIMIT"
    if how.signal == signal.SIGKILL and memory_short:
        return "MEMORY_LIMIT"
    if how.signal and any(each in words for each in _OUT_OF_MEMORY):
        return "MEMORY_LIMIT"
    return "CRASHED"


def with_text(outcome: Outcome) -> Outcome:
    """An outcome that names a limit, with what users are told of it."""
    if outcome.kind is OutcomeKind.FAILED and outcome.reason in LIMITS:
        return cancelled(outcome.reason, outcome.usage)
    return outcome
