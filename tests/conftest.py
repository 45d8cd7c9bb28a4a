"""What holds for every test: property tests look at the same examples in every run.

A property that fails now and then would be a flaky test for whoever meets it. To search further, choose
the other profile: `make test ARGS="--hypothesis-profile=search"`.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("repeatable")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by what they are for: what is in them may be of this moment, and no name."""
    return argname if isinstance(val, bytes) else None
