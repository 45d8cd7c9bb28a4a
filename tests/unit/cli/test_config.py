"""`factorychain config`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer

from factorychain._core.settings import all_settings
from factorychain.cli.config import config
from factorychain.cli.options import check_environment


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("FACTORYCHAIN_")]:
        monkeypatch.delenv(name)


def test_every_variable_is_listed_with_who_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    config(check=False)
    lines = capsys.readouterr().out.splitlines()
    variables = [line for line in lines if line.startswith("FACTORYCHAIN_")]
    assert variables == [doc.variable for doc in all_settings()]
    assert "read by engine" in lines[lines.index("FACTORYCHAIN_USER_MAX_RUNS") + 2]
    assert "read by command" in lines[lines.index("FACTORYCHAIN_DATA_DIR") + 2]
    assert "read by all" in lines[lines.index("FACTORYCHAIN_LOG_LEVEL") + 2]
    assert "wrong now" not in "".join(lines)


def test_the_list_says_what_is_wrong_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_RUN_IDLE_S", "soon")
    config(check=False)
    assert "wrong now: FACTORYCHAIN_RUN_IDLE_S: " in capsys.readouterr().out


def test_a_good_environment_passes_the_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_TOKEN", "one of a user")
    monkeypatch.setenv("FACTORYCHAIN_USER_MAX_RUNS", "5")
    config(check=True)
    assert capsys.readouterr().out == "The configuration is good.\n"


def test_a_wrong_value_and_a_misspelt_name_fail_the_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_USER_MAX_RUN", "5")
    monkeypatch.setenv("FACTORYCHAIN_LOG_LEVEL", "loud")
    with pytest.raises(typer.Exit) as ended:
        config(check=True)
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert "FACTORYCHAIN_USER_MAX_RUN: no such variable" in said
    assert "FACTORYCHAIN_LOG_LEVEL: " in said


def test_who_starts_a_chain_is_told_of_a_misspelt_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_USER_MAX_RUN", "5")
    check_environment()
    said = capsys.readouterr().err
    assert "warning: FACTORYCHAIN_USER_MAX_RUN: no such variable; the chain ignores it" in said


def test_the_check_reads_the_limits_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.toml"
    monkeypatch.setenv("FACTORYCHAIN_LIMITS_FILE", str(path))
    path.write_text("[plans.pro]\nactive_runs = 4\n")
    config(check=True)
    path.write_text("[plans.pro]\nactive_runs = 4000\n")
    with pytest.raises(typer.Exit):
        config(check=True)
    said = capsys.readouterr().err
    assert f"FACTORYCHAIN_LIMITS_FILE: {path}: plans.pro.active_runs: 4000 must be" in said
