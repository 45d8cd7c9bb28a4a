"""How an agent's module says what its agents are made from.

`providers = [make_library, make_index]` in the module: plain annotated functions (also generators,
which are closed when their scope ends) or dishka providers. What a function returns is made anew for
each run, so that nothing passes from one user to the next, unless it is marked with `shared`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_F = TypeVar("_F", bound=Callable[..., object])

_MARK = "__factorychain_shared__"


def shared(function: _F) -> _F:
    """What this function returns is made once per process and used by all runs of all users.

    For what is read-only and dear to make: an index, a model. It is made at start-up, and an agent
    that needs it is listed as unavailable if that fails. Never keep anything of a run in it.
    """
    setattr(function, _MARK, True)
    return function


def is_shared(function: object) -> bool:
    """Whether `shared` marks the function."""
    return getattr(function, _MARK, False) is True
