"""What options mean, and how a command is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from factorychain._core.settings import UserTokenSettings
from factorychain._core.user_tokens import UserVerifier
from factorychain.cli import options
from factorychain.local.datadir import DataDir
from tests.unit.local.test_state import STATE


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER_JWKS_URL", "USER_JWKS_FILE", "USER_SECRET_FILE", "TOKEN", "MODE"):
        monkeypatch.delenv(f"FACTORYCHAIN_{name}", raising=False)


@pytest.fixture
def directory(tmp_path: Path) -> DataDir:
    found = DataDir(tmp_path / "data")
    found.prepare()
    _ = found.user_secret
    found.release()
    return found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h", 3600), (" 7d ", 604_800), ("3650d", 315_360_000)],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: int) -> None:
    assert options.parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0s", "-1h", "1.5h", "1w", "1h30m", "1H"])
def test_what_is_no_duration_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _refused(lambda: options.parse_ttl(text), capsys).startswith(
        f"error: --ttl {text!r} is no duration"
    )


@pytest.mark.parametrize("text", ["3651d", "99999999999999999999d"])
def test_a_duration_of_more_than_ten_years_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "longer than ten years" in _refused(lambda: options.parse_ttl(text), capsys)


async def test_a_token_is_one_that_the_directorys_chain_accepts(
    directory: DataDir, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(directory.user_secret)
    token = options.user_token(directory, "ada", "acme", 60)
    verifier = UserVerifier.from_settings(UserTokenSettings(user_secret_file=secret))
    found = await verifier.verify(token)
    assert (found.principal.tenant, found.principal.user) == ("acme", "ada")


def test_the_environments_token_goes_before_one_made_here(
    directory: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_TOKEN", "given")
    assert options.session_token(directory, "ada", "default") == "given"
    monkeypatch.setenv("FACTORYCHAIN_TOKEN", "")
    assert options.session_token(directory, "ada", "default").count(".") == 2


def test_without_keys_there_is_no_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(lambda: options.user_token(DataDir(tmp_path), "ada", "default", 60), capsys)
    assert "no chain was ever started on it" in said


def test_a_user_without_a_name_is_refused(
    directory: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refused(lambda: options.user_token(directory, "", "default", 60), capsys)
    assert "--user must not be empty" in said


def test_where_an_identity_provider_issues_tokens_none_is_made(
    directory: DataDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_USER_JWKS_URL", "https://idp.example/jwks")
    said = _refused(lambda: options.user_token(directory, "ada", "default", 60), capsys)
    assert "identity provider" in said
    assert "FACTORYCHAIN_TOKEN" in said


def test_the_running_chain_is_found(directory: DataDir) -> None:
    directory.prepare()
    STATE.write(directory.state_file)
    assert options.running_chain(directory.path)[1] == STATE
    directory.release()


def test_a_chain_that_is_not_up_says_how_to_start_it(
    directory: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refused(lambda: options.running_chain(directory.path), capsys)
    assert f"no chain is up on the data directory {directory.path}" in said
    assert "try: factorychain up" in said


def test_a_chain_that_is_starting_says_so(
    directory: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    directory.prepare()
    assert "still starting" in _refused(lambda: options.running_chain(directory.path), capsys)
    directory.release()


def test_what_is_wrong_with_the_environment_is_said_once_for_each_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert options.environment_problems() == []
    monkeypatch.setenv("FACTORYCHAIN_DRAIN_TIMEOUT_S", "never")  # read by all four
    monkeypatch.setenv("FACTORYCHAIN_USER_MAX_RUNS", "0")
    variables = [each.partition(":")[0] for each in options.environment_problems()]
    assert sorted(variables) == ["FACTORYCHAIN_DRAIN_TIMEOUT_S", "FACTORYCHAIN_USER_MAX_RUNS"]


def _refused(command: object, capsys: pytest.CaptureFixture[str]) -> str:
    assert callable(command)
    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 2
    return capsys.readouterr().err
