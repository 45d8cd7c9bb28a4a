"""Gives up every privilege, for good: capabilities, other groups, being looked into, gaining by exec."""

from __future__ import annotations

import contextlib
import errno
import os

from factorychain._sandbox import kernel

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4


def drop_capabilities() -> None:
    """Empties all five sets, and the supplementary groups.

    The bounding set and the groups can only be emptied with a capability. Who has none needs neither:
    `no_new_privs` keeps the bounding set from mattering, and the groups are those of the operator.
    """
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    _drop_bounding()
    kernel.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    kernel.empty_capabilities()


def _drop_bounding() -> None:
    for capability in range(64):
        try:
            kernel.prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.EPERM}:
                return  # this kernel knows no more, or we may not
            raise


def hide() -> None:
    """Not dumpable: processes of the same user cannot look into its memory or environment."""
    kernel.prctl(_PR_SET_DUMPABLE, 0)


def gain_none() -> None:
    """`no_new_privs`: no program that it executes gives it more. Landlock and seccomp ask for it."""
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
