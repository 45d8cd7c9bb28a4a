"""An agent that looks for canaries in everything that its process has."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from factorychain import Agent, RunContext
from tests.e2e import residue
from tests.e2e.residue import Own

providers = residue.providers

_CANARY = re.compile(residue.CANARY.pattern.encode())


class Searches(Agent):
    """Says what it found of others before it left its own canary, and what it found afterwards."""

    name = "searches"

    def __init__(self, own: Own) -> None:
        self.own = own

    async def run(self, ctx: RunContext, text: str) -> dict[str, list[str]]:
        before = residue.residue(self.own)
        residue.leave(self.own, text)
        after = residue.residue(self.own)
        return {"before": before, "after": after, "memory": sorted(_in_memory())}


def _in_memory() -> set[str]:
    """Every canary in what this process may write."""
    areas = [each.split() for each in Path("/proc/self/maps").read_text().splitlines()]
    found: set[bytes] = set()
    for bounds, rights, *_ in areas:
        if rights.startswith("rw"):
            start, end = (int(each, 16) for each in bounds.split("-"))
            area = (ctypes.c_char * (end - start)).from_address(start)
            found.update(each.group() for each in _CANARY.finditer(area))
    return {each.decode() for each in found}
