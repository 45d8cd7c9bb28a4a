"""Where the kernel has what confines, tests of it are not skipped."""

from __future__ import annotations

import pytest

from factorychain._sandbox import Support
from tests.unit._sandbox import expected


@pytest.mark.parametrize(
    ("release", "modules", "abi"),
    [
        ("5.12.19", "lockdown,capability,landlock,yama\n", 0),
        ("5.15.0-91-generic", "lockdown,capability,landlock,yama,apparmor\n", 1),
        ("6.1.0-18-amd64", "landlock", 2),
        ("6.12.3", "landlock", 6),
        ("6.18.44-custom", "capability,landlock\n", 7),
        ("7.0-rc1", "landlock", 7),
        ("6.18.44", "capability,yama\n", 0),
        ("unheard of", "landlock", 0),
    ],
)
def test_a_release_tells_what_landlock_it_has(release: str, modules: str, abi: int) -> None:
    assert expected.abi_of(release, modules) == abi


@pytest.mark.parametrize(
    ("has", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)]
)
def test_what_was_not_found_is_skipped_only_if_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch, has: bool, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(expected, "probe", lambda: Support(landlock_abi=0, seccomp=False))
    monkeypatch.setattr(expected, "landlock_abi", lambda: 6 if has else 0)
    monkeypatch.setattr(expected, "seccomp", lambda: has)
    with pytest.raises(outcome):
        expected.needs_landlock(6)
    with pytest.raises(outcome):
        expected.needs_seccomp()
    with pytest.raises(pytest.skip.Exception):
        expected.needs_landlock(7)
