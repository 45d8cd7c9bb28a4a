"""Makes the processes that this one starts run the same code as this one.

An installed factorychain, editable or from a wheel, is found by a child as it was found here. A checkout
that is only on the path is not: the services' packages lie in folders of their own, and `-P`, with which
services start, keeps the current folder out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import factorychain

_PYTHONPATH = "PYTHONPATH"


def with_this_code(env: Mapping[str, str], package: str = factorychain.__file__) -> dict[str, str]:
    """The environment, with the checkout first on PYTHONPATH if `package` lies in one."""
    folders = _checkout(Path(package).resolve().parents[1])
    if not folders:
        return dict(env)
    path = [*folders, *filter(None, [env.get(_PYTHONPATH)])]
    return {**env, _PYTHONPATH: os.pathsep.join(path)}


def _checkout(root: Path) -> list[str]:
    """The folders with packages of a checkout at `root`; none if it is no checkout."""
    services = sorted(each.parent for each in root.glob("services/*/factorychain_*"))
    return [str(root), *map(str, services)] if services else []
