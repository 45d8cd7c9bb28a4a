"""The filter of system calls, for both architectures, as the kernel would run it."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from factorychain._sandbox import seccomp
from factorychain._sandbox.bpf import ALLOW, Instruction, encode, refusal
from factorychain._sandbox.policy import fixed_rules, own_rules
from factorychain._sandbox.syscalls import ARCHITECTURES, LAST_KNOWN, NUMBERS

PID = 4242


def verdict(program: list[Instruction], architecture: int, number: int, *arguments: int) -> int:
    """Runs a program on one call."""
    passed = [each & 0xFFFFFFFFFFFFFFFF for each in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *passed)
    loaded, place = 0, 0
    while True:
        code, if_true, if_false, value = program[place]
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            loaded &= value
        else:
            holds = loaded == value if code == 0x15 else loaded > value
            place += if_true if holds else if_false


class Filter:
    """What one architecture's filter says."""

    def __init__(self, name: str, **needs: bool) -> None:
        wanted = {"processes": False, "connects": True, "truncate_ruled": True} | needs
        rules = [*fixed_rules(**wanted), *own_rules(PID, processes=wanted["processes"])]
        self.name = name
        self.program = seccomp.program(rules, name)

    def __call__(self, call: str | int, *arguments: int) -> int:
        number = call if isinstance(call, int) else NUMBERS[self.name][call]
        return verdict(self.program, ARCHITECTURES[self.name], number, *arguments)


REFUSED = refusal(errno.EPERM)


@pytest.fixture(params=ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_no_rule_names_is_allowed(name: str) -> None:
    asks = Filter(name)
    named = set(NUMBERS[name].values())
    assert {asks(each) for each in range(LAST_KNOWN + 1) if each not in named} == {ALLOW}
    assert asks(LAST_KNOWN + 1) == refusal(errno.ENOSYS)


def test_calls_of_another_architecture_are_refused(name: str) -> None:
    program = Filter(name).program
    for other in (0x40000003, 0x40000028, *ARCHITECTURES.values()):  # i386, arm
        answer = verdict(program, other, 1)
        assert answer == (ALLOW if other == ARCHITECTURES[name] else REFUSED)


def test_sockets_are_tcp_or_a_pair(name: str) -> None:
    asks = Filter(name)
    close_on_exec = 0o2000000
    for family in (2, 10):
        assert asks("socket", family, 1 | close_on_exec, 0) == ALLOW
        assert asks("socket", family, 1, 6) == ALLOW
        assert asks("socket", family, 2 | close_on_exec, 0) == REFUSED
        assert asks("socket", family, 1, 262) == REFUSED
    assert asks("socket", 1, 1, 0) == REFUSED
    assert asks("socketpair", 1, 1 | close_on_exec, 0) == ALLOW
    assert asks("socketpair", 1, 2, 0) == REFUSED
    # Only the low half of an `int` counts, for the kernel as for the filter.
    assert asks("socket", 1 << 32 | 2, 1, 0) == ALLOW
    assert asks("socket", 1 << 32 | 1, 1, 0) == REFUSED


def test_connecting_needs_a_declared_port(name: str) -> None:
    assert Filter(name)("connect") == ALLOW
    assert Filter(name, connects=False)("connect") == refusal(errno.EACCES)


def test_threads_always_and_processes_if_asked_for(name: str) -> None:
    thread, child, namespace = 0x003D0F00, 17, 0x10000000 | 17
    alone, family = Filter(name), Filter(name, processes=True)
    assert (alone("clone", thread), family("clone", thread)) == (ALLOW, ALLOW)
    assert (alone("clone", child), family("clone", child)) == (REFUSED, ALLOW)
    assert family("clone", namespace) == alone("clone", thread | 0x20000000) == REFUSED
    assert alone("clone3") == family("clone3") == refusal(errno.ENOSYS)
    assert (alone("execve"), family("execve")) == (REFUSED, ALLOW)


def test_signals_go_to_itself(name: str) -> None:
    asks = Filter(name)
    for call in ("kill", "tgkill", "rt_sigqueueinfo"):
        assert asks(call, PID, 15) == ALLOW
        for other in (1, 0, -1, -PID, PID + 1):
            assert asks(call, other, 15) == REFUSED
    assert asks("prlimit64", 0) == asks("prlimit64", PID) == ALLOW
    assert asks("prlimit64", PID + 1) == REFUSED
    assert asks("setpriority", 0, 0, 5) == ALLOW
    assert asks("setpriority", 2, 0, 5) == REFUSED


def test_an_older_landlock_gets_help_with_truncating(name: str) -> None:
    new, old = Filter(name), Filter(name, truncate_ruled=False)
    truncating, reading = os.O_RDONLY | os.O_TRUNC, os.O_RDONLY
    assert new("openat", 0, 0, truncating) == new("truncate") == ALLOW
    assert old("openat", 0, 0, truncating) == old("truncate") == REFUSED
    assert old("openat", 0, 0, reading) == old("openat", 0, 0, os.O_WRONLY | os.O_TRUNC) == ALLOW
    assert old("openat2") == refusal(errno.ENOSYS)


def test_every_rule_names_a_call_that_is_known() -> None:
    rules = [
        *fixed_rules(processes=False, connects=False, truncate_ruled=False),
        *own_rules(PID, processes=False),
    ]
    unknown = {each.call for each in rules} - set(NUMBERS["x86_64"])
    # aarch64 has few that x86_64 has not; what is newer than either table is refused by its number.
    assert unknown == set()
    assert not {each.call for each in rules if [one.call for one in rules].count(each.call) > 1}


def test_a_program_made_before_is_the_same_with_the_own_number_put_in(name: str) -> None:
    if name != os.uname().machine:
        return
    made = seccomp.filter_for(processes=False, connects=True, truncate_ruled=True)
    rules = [
        *fixed_rules(processes=False, connects=True, truncate_ruled=True),
        *own_rules(os.getpid(), processes=False),
    ]
    assert made == encode(seccomp.program(rules, name))
    assert len(made) // 8 < 4096  # the kernel's limit
