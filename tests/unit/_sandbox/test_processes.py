"""Other processes: none is started unless asked for, and none outside is reached."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factorychain._sandbox.syscalls import NUMBERS, machine
from tests.unit._sandbox.attempts import files, processes
from tests.unit._sandbox.confined import Cell


@pytest.fixture
def other() -> Iterator[int]:
    """A process of the same user."""
    with subprocess.Popen(["sleep", "60"], env={"CANARY": "canary"}) as it:
        yield it.pid
        assert it.poll() is None
        it.terminate()


@pytest.mark.parametrize(
    "what", [processes.fork, processes.start_program, processes.replace_program]
)
def test_no_process_is_started(own: Cell, what: object) -> None:
    assert callable(what)
    came = own.attempt(what)
    assert came.errno == errno.EPERM
    assert "processes = True" in came.hint


def test_not_by_the_call_itself_either(own: Cell) -> None:
    numbers = NUMBERS[machine()]
    child = (17, 0, 0, 0, 0)  # SIGCHLD, as fork does
    assert own.attempt(processes.call_number, numbers["clone"], *child).errno == errno.EPERM
    assert own.attempt(processes.call_number, numbers["clone3"], 0, 0).errno == errno.ENOSYS


def test_processes_that_are_asked_for_are_started(own: Cell) -> None:
    own = own.with_(processes=True)
    assert own.attempt(processes.fork).value == 7
    assert own.attempt(processes.start_program).value == "ran\n"
    assert own.attempt(processes.run_python, "print(6 * 7)").value == "42\n"


def test_they_are_confined_too(own: Cell, elsewhere: Path, other: int) -> None:
    own = own.with_(processes=True)
    secret = elsewhere / "secret"
    for text, refusal in {
        f"open({str(secret)!r})": "Permission denied",
        f"open({str(secret)!r}, 'w')": "Permission denied",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)": "not permitted",
        "import socket; socket.create_connection(('127.0.0.1', 1))": "Permission denied",
        f"import os; os.kill({other}, 0)": "not permitted",
        "import os; os.unshare"
        if hasattr(os, "unshare")
        else "import os; os.setsid()": "not permit",
        f"open('/proc/{other}/environ').read()": "Permission denied",
    }.items():
        assert refusal in str(own.attempt(processes.run_python, text).value), text
    assert secret.read_text() == "canary"


def test_they_stay_in_the_group_that_is_ended_with_the_run(own: Cell) -> None:
    own = own.with_(processes=True)
    leaving: list[Callable[[], None]] = [processes.leave_session, processes.start_in_own_session]
    for what in leaving:
        came = own.attempt(what)
        assert came.errno == errno.EPERM
        assert "group" in came.hint
    parents = 0x8000 | 17  # CLONE_PARENT: a sibling instead of a child
    clone = NUMBERS[machine()]["clone"]
    assert own.attempt(processes.call_number, clone, parents, 0, 0, 0, 0).errno == errno.EPERM


@pytest.mark.parametrize("flag", [0x00020000, 0x10000000, 0x20000000, 0x40000000])
def test_no_namespace_is_entered(own: Cell, flag: int) -> None:
    own = own.with_(processes=True)
    assert own.attempt(processes.call, "unshare", flag).errno == errno.EPERM
    clone = NUMBERS[machine()]["clone"]
    assert own.attempt(processes.call_number, clone, flag | 17, 0, 0, 0, 0).errno == errno.EPERM


@pytest.mark.parametrize("abi", [0, 5, 7])
def test_no_other_process_is_signalled_or_limited(own: Cell, other: int, abi: int) -> None:
    own = own.with_abi(abi)
    for what in (
        processes.kill,
        processes.kill_by_descriptor,
        processes.limit_other,
        processes.renice,
        processes.pin_other,
    ):
        came = own.attempt(what, other)
        assert came.errno == errno.EPERM, (what, came)
    for group in (0, -1, -os.getpgrp()):
        assert own.attempt(processes.kill, group).errno == errno.EPERM
    assert own.attempt(processes.renice_all).errno == errno.EPERM
    assert own.attempt(processes.own_signals_by_descriptor).errno == errno.EPERM


def test_with_processes_of_its_own_it_still_signals_nobody_outside(own: Cell, other: int) -> None:
    own = own.with_(processes=True)
    for what in (processes.kill, processes.kill_by_descriptor, processes.limit_other):
        assert own.attempt(what, other).errno == errno.EPERM


def test_it_signals_itself(own: Cell) -> None:
    assert own.attempt(processes.signal_itself).value == "3"


@pytest.mark.parametrize("with_processes", [False, True])
def test_what_others_have_in_memory_and_environment_is_not_read(
    own: Cell, other: int, with_processes: bool
) -> None:
    own = own.with_(processes=with_processes)
    for name in ("environ", "maps", "mem"):
        assert own.attempt(files.read, f"/proc/{other}/{name}").errno == errno.EACCES
        assert own.attempt(files.read, f"/proc/1/{name}").errno == errno.EACCES
    attach = 16
    assert own.attempt(processes.call, "ptrace", attach, other, 0, 0).errno == errno.EPERM


def test_other_processes_are_not_even_seen(own: Cell, other: int) -> None:
    for name in ("cmdline", "status", "stat"):
        assert own.attempt(files.read, f"/proc/{other}/{name}").errno == errno.EACCES


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at what is special about root")
def test_as_root_without_landlock_others_are_still_not_read(own: Cell, other: int) -> None:
    came = own.with_abi(0).attempt(files.read, f"/proc/{os.getpid()}/environ")
    assert came.errno == errno.EACCES
    assert own.with_abi(0).attempt(files.read, "/proc/self/status").value


@pytest.mark.parametrize(
    "name",
    [
        "add_key", "bpf", "fanotify_init", "init_module", "inotify_init1", "io_uring_setup",
        "kexec_load", "keyctl", "memfd_create", "mount", "mq_open", "msgget", "open_by_handle_at",
        "perf_event_open", "personality", "pidfd_getfd", "pivot_root", "process_vm_readv",
        "process_vm_writev", "semget", "setns", "shmget", "swapoff", "syslog", "tkill", "umount2",
        "unshare", "userfaultfd",
    ],
)  # fmt: skip
def test_calls_that_no_agent_needs_are_refused(own: Cell, name: str) -> None:
    came = own.attempt(processes.call_number, NUMBERS[machine()][name], 0, 0, 0, 0, 0, 0)
    expected = errno.ENOSYS if name == "memfd_create" else errno.EPERM
    assert came.errno == expected


def test_calls_that_are_newer_than_the_filter_seem_not_to_exist(own: Cell) -> None:
    assert own.attempt(processes.call_number, 463, 0).errno == errno.ENOSYS
    if machine() == "x86_64":
        x32 = 0x40000000 | 39
        assert own.attempt(processes.call_number, x32).errno == errno.ENOSYS


def test_nothing_is_typed_into_a_terminal(own: Cell) -> None:
    assert own.attempt(processes.type_into_terminal).errno == errno.EPERM


def test_a_process_with_another_thread_is_not_confined() -> None:
    text = (
        "import threading, factorychain._sandbox as s\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "try: s.confine(s.Confinement(directory='/tmp', environment={}))\n"
        "except s.CannotConfine as error: print(error.feature, error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("threads threads: the process has 2 threads")
