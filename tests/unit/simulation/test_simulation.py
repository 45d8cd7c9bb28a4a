"""The chain under the simulation: what it promises, and that the simulation would notice.

In processes of their own, since a simulation takes time, chance, threads and sockets away. Here are as
many seeds as fit beside the other tests; `make simulation` takes 2,000.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.command import ROOT
from tests.simulation.bugs import FOUND_BY

SEEDS = 500

# It uses every core there is.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(620)]


def simulation(*arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def test_the_chain_keeps_its_promises_whatever_goes_wrong() -> None:
    done = simulation("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{SEEDS} seeds"), done.stdout


def test_a_process_may_die_at_any_crash_point() -> None:
    done = simulation("--crash-points", "--times", "1", "--seeds", "300")
    assert done.returncode == 0, done.stdout + done.stderr


def test_bugs_that_are_put_in_are_found() -> None:
    done = simulation("--seeds", "2000", "--bugs", *FOUND_BY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_takes_the_same_course_again() -> None:
    once, again = (simulation("--seeds", "12", "--digests", "--jobs", jobs) for jobs in ("1", "2"))
    courses = once.stdout.splitlines()[:-1]
    assert len(set(courses)) == 12
    assert courses == again.stdout.splitlines()[:-1]


def test_seeds_take_different_courses_and_hit_running_chains() -> None:
    done = simulation("--seeds", "20")
    words = done.stdout.replace(",", "").split()
    counted = {words[at + 1]: int(words[at]) for at in range(len(words) - 1) if words[at].isdigit()}
    assert counted["runs"] > 40
    assert counted["events"] > 100
    assert counted["faults"] > 20
