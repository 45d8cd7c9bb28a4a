"""What holds for every test: property tests look at the same examples in every run.

A property that fails now and then would be a flaky test for whoever meets it: neither chance nor the
speed of the machine may decide. To search further, choose the other profile:
`make test ARGS="--hypothesis-profile=search"`.
"""

from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# Both of these are about the clock on the wall.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeatable", _UNTIMED, derandomize=True)
settings.register_profile("search", _UNTIMED)
settings.load_profile("repeatable")

_SHARED = re.compile(r".*/one_\w+/")

# Importing all tests takes half as long again when what they make is looked through all the time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by what they are for: what is in them may be of this moment, and no name."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """A file goes to one worker, and so do all files of a folder that shares one chain."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByChain(LoadFileScheduling):  # type: ignore[misc]  # has no types
        def _split_scope(self, nodeid: str) -> str:
            shared = _SHARED.match(nodeid)
            return shared[0] if shared else str(super()._split_scope(nodeid))

    return ByChain(config, log)
