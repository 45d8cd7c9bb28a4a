"""What holds for every test: property tests look at the same examples in every run.

A property that fails now and then would be a flaky test for whoever meets it: neither chance nor the
speed of the machine may decide. To search further, choose the other profile:
`make test ARGS="--hypothesis-profile=search"`.
"""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

# Both of these are about the clock on the wall.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeatable", _UNTIMED, derandomize=True)
settings.register_profile("search", _UNTIMED)
settings.load_profile("repeatable")

# Importing all tests takes half as long again when what they make is looked through all the time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by what they are for: what is in them may be of this moment, and no name."""
    return argname if isinstance(val, bytes) else None
