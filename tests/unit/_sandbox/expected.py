"""What the kernel says it can confine by, in other places than where the product looks.

So that tests which need it are skipped only where it is not there: a probe that finds nothing fails them.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

from factorychain._sandbox import probe

_MODULES = Path("/sys/kernel/security/lsm")
_STATUS = Path("/proc/self/status")
_ARCHITECTURES = frozenset({"x86_64", "aarch64"})
# In which version of Linux each ABI came (Documentation/userspace-api/landlock.rst).
_RELEASES = ((5, 13), (5, 19), (6, 2), (6, 7), (6, 10), (6, 12), (6, 15))


@cache
def landlock_abi() -> int:
    """That the kernel has at least; 0: none."""
    try:
        modules = _MODULES.read_text()
    except OSError:
        modules = "landlock"  # not told (securityfs is not mounted): as its release comes
    return abi_of(os.uname().release, modules)


def abi_of(release: str, modules: str) -> int:
    """Of a kernel's release and its list of security modules."""
    version = re.match(r"(\d+)\.(\d+)", release)
    if version is None or "landlock" not in modules.strip().split(","):
        return 0
    return sum(tuple(map(int, version.groups())) >= each for each in _RELEASES)


@cache
def seccomp() -> bool:
    """Whether the kernel filters system calls, on an architecture whose calls have a table."""
    return "\nSeccomp:" in _STATUS.read_text() and os.uname().machine in _ARCHITECTURES


def needs_landlock(abi: int) -> None:
    """Skips the test where the kernel has no such version; where it has, the product must find it."""
    found = probe().landlock_abi
    if found < abi <= landlock_abi():
        pytest.fail(
            f"the kernel ({os.uname().release}) has Landlock's version {abi}, {found} was found; "
            f"if it is switched off, mount securityfs so that {_MODULES} says so"
        )
    if found < abi:
        pytest.skip(f"this kernel's Landlock is of version {found}")


def needs_seccomp() -> None:
    """The same for seccomp."""
    if probe().seccomp:
        return
    if seccomp():
        pytest.fail(f"{_STATUS} says that the kernel has seccomp, but none was found")
    pytest.skip("this kernel has no seccomp")
