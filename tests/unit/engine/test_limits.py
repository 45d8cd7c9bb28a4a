"""A change of the limits' file is taken as a whole or not at all, without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from factorychain._core.ids import Principal
from factorychain._core.plans import UserLimits
from factorychain._core.plans_file import FILE_MAX_BYTES
from factorychain._core.settings import Misconfigured
from factorychain_engine.limits import REMIND_LOOKS, Limits
from tests.waiting import until_true

ADA = Principal("acme", "ada")
GROUND = UserLimits(2, 16, 300.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.toml"


def _write(path: Path, active_runs: int) -> None:
    path.write_text(f"[plans.pro]\nactive_runs = {active_runs}\n")


async def test_without_a_file_the_settings_are_in_force() -> None:
    limits = Limits(GROUND, None)
    await limits.start()
    await limits.look()
    assert limits.of(ADA, "pro") == GROUND
    await limits.stop()


def test_a_start_with_a_file_that_cannot_be_used_says_which_and_why(path: Path) -> None:
    with pytest.raises(Misconfigured, match=f"FACTORYCHAIN_LIMITS_FILE: {path}: .*No such file"):
        Limits(GROUND, path)
    path.write_text("[plans.pro]\nactive_runs = 0\n")
    with pytest.raises(Misconfigured, match=r"limits.toml: plans.pro.active_runs: 0 must be"):
        Limits(GROUND, path)
    path.write_bytes(b"#" * (FILE_MAX_BYTES + 1))
    with pytest.raises(Misconfigured, match="has more than 4194304 bytes"):
        Limits(GROUND, path)


async def test_a_change_is_found_while_it_runs(path: Path) -> None:
    _write(path, 5)
    limits = Limits(GROUND, path, look_s=0.01)
    await limits.start()
    assert limits.of(ADA, "pro").active_runs == 5
    _write(path, 3)
    await until_true(lambda: limits.of(ADA, "pro").active_runs == 3)
    await limits.stop()
    assert limits.healthy


async def test_a_broken_file_leaves_the_last_good_one_in_force_and_is_reported(path: Path) -> None:
    _write(path, 5)
    limits = Limits(GROUND, path)
    path.write_text("[plans.pro]\nactive_runs = 'many'\n")
    with capture_logs() as logs:
        for _ in range(REMIND_LOOKS + 1):
            await limits.look()
    assert limits.of(ADA, "pro").active_runs == 5
    problems = [each["problem"] for each in logs if each["log_level"] == "error"]
    assert len(problems) == 2  # at once, and again while it lasts
    assert all("plans.pro.active_runs: 'many'" in each for each in problems)
    path.unlink()
    with capture_logs() as logs:
        await limits.look()
    assert "No such file" in logs[0]["problem"]
    _write(path, 6)
    await limits.look()
    assert limits.of(ADA, "pro").active_runs == 6


async def test_a_file_that_becomes_what_it_was_is_good_again(path: Path) -> None:
    _write(path, 5)
    limits = Limits(GROUND, path)
    path.write_text("[")
    await limits.look()
    _write(path, 5)
    with capture_logs() as logs:
        await limits.look()
        await limits.look()
    assert [each["event"] for each in logs] == ["the limits' file is good again"]


def test_a_plan_that_is_not_defined_is_reported_once(path: Path) -> None:
    _write(path, 5)
    limits = Limits(GROUND, path)
    with capture_logs() as logs:
        for _ in range(3):
            assert limits.of(ADA, "platinum") == GROUND
        assert limits.of(ADA, "") == GROUND
    assert [each["plan"] for each in logs] == ["platinum"]
