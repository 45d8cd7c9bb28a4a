"""The data directory: one chain at a time, secrets for its owner only, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from factorychain._core.keys import TxnKey
from factorychain.local.datadir import DataDir, DataDirUnusable
from tests.unit.local.test_state import STATE


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDir]:
    found = DataDir(tmp_path / "data")
    found.prepare()
    yield found
    found.release()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def secrets(directory: DataDir) -> tuple[bytes, ...]:
    passwords = (directory.nats_password(each).encode() for each in ("engine", "bridge"))
    return (directory.txn_key, directory.user_secret, *passwords)


def test_nothing_is_made_before_it_is_prepared(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "data")
    assert not directory.has_keys()
    assert not directory.is_locked()
    assert directory.running() is None
    assert not directory.path.exists()


def test_only_the_owner_can_look_into_it(directory: DataDir) -> None:
    made = secrets(directory)
    directory.write_private(directory.nats_config, b"passwords")
    assert len(set(made)) == 4
    assert (mode(directory.path), mode(directory.path / "keys")) == (0o700, 0o700)
    files = [each for each in (directory.path / "keys").iterdir() if each.is_file()]
    assert len(files) == 5
    assert {mode(each) for each in files} == {0o600}


def test_a_file_that_others_could_read_is_replaced_and_not_written_into(
    directory: DataDir,
) -> None:
    directory.nats_config.touch(mode=0o644)
    directory.write_private(directory.nats_config, b"passwords")
    assert mode(directory.nats_config) == 0o600
    assert directory.nats_config.read_bytes() == b"passwords"


def test_keys_stay_when_the_chain_comes_back(directory: DataDir) -> None:
    before, jwks = secrets(directory), directory.txn_jwks_file.read_text()
    directory.release()
    again = DataDir(directory.path)
    again.prepare()
    assert secrets(again) == before
    assert again.txn_jwks_file.read_text() == jwks
    again.release()


def test_the_public_document_holds_the_public_key_only(directory: DataDir) -> None:
    (published,) = json.loads(directory.txn_jwks_file.read_text())["keys"]
    assert published["kid"] == TxnKey.parse(directory.txn_key).kid
    assert "d" not in published


def test_a_second_chain_is_refused_and_takes_nothing_from_the_first(directory: DataDir) -> None:
    STATE.write(directory.state_file)
    second = DataDir(directory.path)
    with pytest.raises(DataDirUnusable, match="a chain already runs on this data directory"):
        second.prepare()
    second.release()
    assert second.running() == STATE


def test_a_chain_that_starts_is_locked_and_not_yet_running(directory: DataDir) -> None:
    assert DataDir(directory.path).is_locked()
    assert DataDir(directory.path).running() is None


def test_what_a_killed_chain_left_is_not_taken_for_the_new_one(directory: DataDir) -> None:
    directory.release()
    STATE.write(directory.state_file)
    assert directory.running() is None
    directory.prepare()
    assert directory.running() is None


def test_a_stopped_chain_does_not_run(directory: DataDir) -> None:
    STATE.write(directory.state_file)
    assert directory.running() == STATE
    directory.release()
    assert directory.running() is None
    assert not directory.state_file.exists()


def test_a_path_that_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirUnusable, match=r"file cannot be used: Not a directory"):
        DataDir(tmp_path / "file").prepare()


def test_a_broken_key_is_refused_and_the_directory_given_back(directory: DataDir) -> None:
    directory.release()
    (directory.path / "keys" / "txn-key.pem").write_text("no key")
    with pytest.raises(DataDirUnusable, match=r"txn-key\.pem holds no unencrypted private key"):
        directory.prepare()
    assert not directory.is_locked()
