"""Privileges, environment and descriptors: what a process had before is gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from factorychain._sandbox import InvalidConfinement, compose_environment
from tests.unit._sandbox.attempts import inheritance
from tests.unit._sandbox.confined import Cell, Parent, cell


def test_no_capability_is_left_and_none_can_be_gained(own: Cell) -> None:
    status = own.attempt(inheritance.status).value
    assert isinstance(status, dict)
    nothing = {"CapInh", "CapPrm", "CapEff", "CapAmb"}
    # Without CAP_SETPCAP nobody can empty the bounding set; `NoNewPrivs` makes it idle.
    nothing |= {"CapBnd"} if os.geteuid() == 0 else set()
    assert {status[name] for name in nothing} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_nobody_looks_into_it(own: Cell) -> None:
    assert own.attempt(inheritance.dumpable).value == 0
    assert own.attempt(inheritance.become_dumpable).errno == errno.EPERM


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may leave its groups")
def test_root_leaves_its_groups(own: Cell) -> None:
    assert own.attempt(inheritance.groups).value == []


def test_the_environment_is_the_allowlist_and_what_is_declared(tmp_path: Path) -> None:
    source = {"CANARY": "canary", "WANTED": "wanted", "PATH": "/bin", "LC_ALL": "C.UTF-8"}
    made = compose_environment(source, ("WANTED", "ABSENT"), str(tmp_path))
    own = dict.fromkeys(("HOME", "TMPDIR", "TMP", "TEMP"), str(tmp_path))
    names = {"USER": "agent", "LOGNAME": "agent", "RES_OPTIONS": "use-vc"}
    assert made == {"PATH": "/bin", "LC_ALL": "C.UTF-8", "WANTED": "wanted"} | own | names


def test_settings_of_the_chain_cannot_be_declared(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfinement, match="FACTORYCHAIN_KEY belongs to the chain"):
        compose_environment({}, ("FACTORYCHAIN_KEY",), str(tmp_path))


def test_nothing_of_the_first_environment_is_left(tmp_path: Path) -> None:
    parent = Parent(CANARY="canary")
    it = cell(parent, tmp_path)
    assert it.attempt(inheritance.environment).value == it.confinement.environment
    everywhere = it.attempt(inheritance.memory_of_environment).value
    parent.close()
    assert isinstance(everywhere, list)
    assert "canary" not in "".join(everywhere).lower()
    assert everywhere[2:] in ([], [""])


def test_a_variable_that_python_does_not_know_of_is_forgotten_too() -> None:
    text = (
        "import ctypes; from factorychain._sandbox.environment import replace_environment\n"
        "libc = ctypes.CDLL(None); libc.getenv.restype = ctypes.c_char_p\n"
        "libc.setenv(b'CANARY', b'canary', 1); replace_environment({'A': 'b'})\n"
        "print(libc.getenv(b'CANARY'), libc.getenv(b'A'))"
    )
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert ended.stdout == "None b'b'\n"


def test_a_missing_variable_is_said_to_need_declaring(own: Cell) -> None:
    came = own.attempt(inheritance.environment_missing, "API_KEY")
    assert came.error == "KeyError"
    assert "`env`" in came.hint


def test_its_folders_are_its_own(own: Cell) -> None:
    assert own.attempt(inheritance.working_folders).value == [str(own.directory)] * 3


def test_only_named_descriptors_stay_open(own: Cell) -> None:
    with tempfile.TemporaryFile() as kept, tempfile.TemporaryFile() as closed:
        parent = Parent(pass_fds=(kept.fileno(), closed.fileno()))
        own = replace(own, parent=parent).with_(keep_descriptors=(kept.fileno(),))
        found = own.attempt(inheritance.descriptors).value
        assert isinstance(found, dict)
        # Names in /proc that rules are for are held, without a right to read or write.
        held = {to for to in found.values() if to.startswith("/proc")}
        assert held >= {"/proc/sys", "/proc/meminfo"}
        others = {name: to for name, to in found.items() if not to.startswith("/proc")}
        assert set(others) >= {"0", "1", "2", str(kept.fileno())}
        assert len(others) == 5  # and the pipe that the answer comes by
        assert own.attempt(inheritance.write_to, kept.fileno()).value == 1
        assert own.attempt(inheritance.write_to, closed.fileno()).errno == errno.EBADF
        parent.close()


def test_a_descriptor_to_keep_that_is_not_open_is_said(own: Cell) -> None:
    came = own.with_(keep_descriptors=(999,)).attempt(inheritance.status)
    assert came.error == "CannotConfine"
    assert came.message == "descriptors: [Errno 9] Bad file descriptor"
