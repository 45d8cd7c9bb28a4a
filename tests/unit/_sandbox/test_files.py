"""Files and folders: a run writes its own folder only, and reads what is named."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit._sandbox.attempts import files
from tests.unit._sandbox.confined import Cell

Attempt = Callable[..., object]
ABIS = range(1, 8)


def test_what_libraries_do_in_the_own_folder_works(own: Cell) -> None:
    came = own.attempt(files.work_in_own_folder)
    assert came.value == ["a", "data.db", "moved", "symlink"], came
    assert (own.directory / "moved").read_text() == "t"


@pytest.mark.parametrize("abi", ABIS)
def test_a_file_elsewhere_is_neither_read_nor_written(own: Cell, elsewhere: Path, abi: int) -> None:
    secret = elsewhere / "secret"
    own = own.with_abi(abi)
    refused: list[Attempt] = [files.read, files.write, files.remove, files.truncate]
    for what in refused:
        came = own.attempt(what, str(secret))
        assert came.errno in {errno.EACCES, errno.EPERM}, came
        assert "read_paths" in came.hint or came.errno == errno.EPERM
    refused = [files.listing, files.open_database]
    for what in refused:
        assert own.attempt(what, str(elsewhere)).error in {"PermissionError", "OperationalError"}
    assert own.attempt(files.write, str(elsewhere / "new")).errno == errno.EACCES
    assert secret.read_text() == "canary"
    assert list(elsewhere.iterdir()) == [secret]


@pytest.mark.parametrize("abi", ABIS)
def test_own_files_are_written_and_nothing_is_moved_out_or_in(
    own: Cell, elsewhere: Path, abi: int
) -> None:
    own = own.with_abi(abi).with_(read_paths=(str(elsewhere),))
    assert own.attempt(files.write, "mine").value == "written"
    secret = str(elsewhere / "secret")
    for what, source, target in (
        (files.rename, "mine", str(elsewhere / "taken")),
        (files.rename, secret, "taken"),
        (files.link, secret, "taken"),
    ):
        assert own.attempt(what, source, target).errno in {errno.EACCES, errno.EXDEV}
    assert list(own.directory.iterdir()) == [own.directory / "mine"]
    assert list(elsewhere.iterdir()) == [elsewhere / "secret"]


@pytest.mark.parametrize("abi", ABIS)
def test_a_declared_path_is_read_but_never_changed(own: Cell, elsewhere: Path, abi: int) -> None:
    secret = elsewhere / "secret"
    own = own.with_abi(abi).with_(read_paths=(str(elsewhere),))
    assert own.attempt(files.read, str(secret)).value == "canary"
    assert own.attempt(files.listing, str(elsewhere)).value == ["secret"]
    for what in (files.write, files.truncate, files.open_truncating, files.remove):
        came = own.attempt(what, str(secret))
        assert came.error == "PermissionError", (what, came)
    assert secret.read_text() == "canary"


def test_a_single_declared_file_opens_nothing_beside_it(own: Cell, elsewhere: Path) -> None:
    (elsewhere / "other").write_text("other")
    own = own.with_(read_paths=(str(elsewhere / "secret"), str(elsewhere / "absent")))
    assert own.attempt(files.read, str(elsewhere / "secret")).value == "canary"
    assert own.attempt(files.read, str(elsewhere / "other")).errno == errno.EACCES


def test_a_link_in_the_own_folder_leads_nowhere_else(own: Cell, elsewhere: Path) -> None:
    (own.directory / "way").symlink_to(elsewhere)
    assert own.attempt(files.read, "way/secret").errno == errno.EACCES
    assert own.attempt(files.read, "../elsewhere/secret").errno == errno.EACCES


def test_modes_times_and_owners_stay_what_they_are(own: Cell, elsewhere: Path) -> None:
    secret = elsewhere / "secret"
    before = secret.stat()
    came = own.attempt(files.change_mode, str(secret))
    assert (came.error, came.exit) == ("", 0)
    assert secret.stat() == before
    assert own.attempt(files.set_attribute, str(secret)).errno == errno.EOPNOTSUPP


def test_the_hint_names_the_path_also_behind_another_error(own: Cell, elsewhere: Path) -> None:
    secret = str(elsewhere / "secret")
    came = own.attempt(files.raise_wrapped, secret)
    assert came.error == "RuntimeError"
    assert secret in came.hint
    assert "read_paths" in came.hint
    assert "read_paths" in own.attempt(files.open_database, str(elsewhere / "db")).hint


def test_without_landlock_the_rest_holds_and_it_is_said(own: Cell, elsewhere: Path) -> None:
    came = own.with_abi(0).attempt(files.read, str(elsewhere / "secret"))
    assert came.value == "canary"
    assert came.missing == (
        "landlock",
        "landlock_truncate",
        "landlock_network",
        "landlock_devices",
        "landlock_scopes",
    )
    assert own.with_abi(0).attempt(files.truncate, "mine").errno == errno.EPERM


def test_without_landlock_a_run_that_requires_it_does_not_start(own: Cell) -> None:
    came = own.with_abi(0).with_(require=frozenset({"landlock"})).attempt(files.write, "mine")
    assert came.error == "CannotConfine"
    assert "landlock" in came.message
    assert not (own.directory / "mine").exists()
    assert own.with_(require=frozenset({"landlock"})).attempt(files.write, "mine").value


def test_an_older_landlock_says_what_it_lacks(own: Cell) -> None:
    assert own.with_abi(3).attempt(files.write, "mine").missing == (
        "landlock_network",
        "landlock_devices",
        "landlock_scopes",
    )
    assert own.with_abi(6).attempt(files.write, "mine").missing == ()


def test_what_is_private_cannot_lie_among_the_libraries(own: Cell) -> None:
    private = str(Path(sys.prefix) / "data")
    came = own.with_(private_paths=(private,)).attempt(files.write, "mine")
    assert came.error == "CannotConfine"
    assert private in came.message


def test_a_folder_that_is_not_there_is_said(own: Cell) -> None:
    came = own.with_(directory=str(own.directory / "absent")).attempt(files.write, "mine")
    assert came.error == "CannotConfine"
    assert "absent" in came.message


def test_programs_of_the_machine_and_its_users_are_not_read(own: Cell) -> None:
    home = str(Path.home() / ".bashrc")
    for path in ("/etc/passwd", "/etc/shadow", home, "/etc/ssl/private"):
        assert own.attempt(files.read, path).error in {"PermissionError", "FileNotFoundError"}
    for path in ("/", "/tmp", "/home", "/proc", "/proc/1"):
        assert own.attempt(files.listing, path).error in {"PermissionError", "FileNotFoundError"}
