"""What each version of Landlock is told."""

from __future__ import annotations

import pytest

from factorychain._sandbox import Feature, Support, probe
from factorychain._sandbox.landlock import OWN, READ, Access, handled


@pytest.mark.parametrize(
    ("abi", "size", "newest"),
    [
        (1, 8, Access.MAKE_SYM),
        (2, 8, Access.REFER),
        (3, 8, Access.TRUNCATE),
        (4, 16, Access.TRUNCATE),
        (5, 16, Access.IOCTL_DEV),
        (6, 24, Access.IOCTL_DEV),
        (7, 24, Access.IOCTL_DEV),
        (99, 24, Access.IOCTL_DEV),
    ],
)
def test_only_what_the_version_knows_is_asked_of_it(abi: int, size: int, newest: Access) -> None:
    what = handled(abi)
    assert len(what.attributes(abi)) == size
    assert what.files == Access(newest * 2 - 1)
    assert bool(what.network) == (abi >= 4)
    assert bool(what.scopes) == (abi >= 6)


def test_nothing_is_executed_and_no_device_made_in_the_own_folder() -> None:
    assert not OWN & (Access.EXECUTE | Access.MAKE_CHAR | Access.MAKE_BLOCK | Access.MAKE_SOCK)
    assert OWN & READ == READ


def test_this_kernel_is_asked_once() -> None:
    assert probe() is probe()
    assert probe().landlock_abi >= 0


@pytest.mark.parametrize(
    ("abi", "seccomp", "missing"),
    [
        (7, True, ()),
        (5, True, (Feature.LANDLOCK_SCOPES,)),
        (3, False, (Feature.LANDLOCK_NETWORK, Feature.LANDLOCK_DEVICES, Feature.LANDLOCK_SCOPES, Feature.SECCOMP)),
    ],
)  # fmt: skip
def test_the_operator_is_told_what_does_not_hold(
    abi: int, seccomp: bool, missing: tuple[Feature, ...]
) -> None:
    support = Support(abi, seccomp)
    assert support.missing == missing
    for feature, warning in zip(missing, support.warnings, strict=True):
        assert warning.startswith(f"no {feature}: ")
        assert "Linux" in warning
