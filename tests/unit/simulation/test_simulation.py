"""The chain under the simulation: what it promises, and that the simulation would notice.

In processes of their own, as many at once as there are cores, since a simulation takes time, chance,
threads and sockets away.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.command import ROOT

SEEDS = 2000
AGAIN = 12
"""Seeds whose simulation is repeated: the last."""

# They use every core there is. A machine that is busy, or slow, takes several times as long.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(620)]


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def every_seed() -> subprocess.CompletedProcess[str]:
    return simulation("--seeds", str(SEEDS), "--digests")


def test_the_chain_keeps_its_promises_whatever_goes_wrong(
    every_seed: subprocess.CompletedProcess[str],
) -> None:
    assert every_seed.returncode == 0, every_seed.stdout[-8000:] + every_seed.stderr
    assert every_seed.stdout.splitlines()[-1].startswith(f"{SEEDS} seeds in")


def test_seeds_take_different_courses_and_hit_running_chains(
    every_seed: subprocess.CompletedProcess[str],
) -> None:
    courses = every_seed.stdout.splitlines()[:-1]
    assert len({each.split()[1] for each in courses}) == SEEDS
    words = every_seed.stdout.splitlines()[-1].replace(",", "").split()
    counted = {words[at + 1]: int(words[at]) for at in range(len(words) - 1) if words[at].isdigit()}
    assert counted["runs"] > 2 * SEEDS
    assert counted["events"] > 10 * SEEDS
    assert counted["faults"] > SEEDS


def test_a_seed_takes_the_same_course_again(
    every_seed: subprocess.CompletedProcess[str],
) -> None:
    first = str(SEEDS - AGAIN + 1)
    again = simulation("--seed", first, "--seeds", str(AGAIN), "--digests", "--jobs", "1")
    assert again.stdout.splitlines()[:-1] == every_seed.stdout.splitlines()[-AGAIN - 1 : -1]


def test_a_process_may_die_at_any_crash_point() -> None:
    done = simulation("--crash-points", "--times", "1", "--seeds", "300")
    assert done.returncode == 0, done.stdout + done.stderr


def test_bugs_that_are_put_in_are_found() -> None:
    done = simulation("--bugs", "--known", "--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 15, done.stdout
