"""An agent of a module that imports numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from factorychain import Agent, RunContext

_AXES = np.diag([1.0, 2.0, 3.0])
"""Computed with before the fork: a native pool would be there by then."""
_ = np.linalg.eigvalsh(_AXES @ _AXES)


class Computes(Agent):
    """Has BLAS and LAPACK work, and draws from numpy's own generator."""

    name = "computes"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        large = np.full((400, 400), 2.0)
        return {
            "product": float((large @ large)[0, 0]),
            "values": [round(float(each), 6) for each in np.linalg.eigvalsh(_AXES @ _AXES)],
            "drawn": float(np.random.random()),
            "threads": len(list(Path("/proc/self/task").iterdir())),
        }
