"""The chain that `factorychain up` starts, with a relay in every connection.

The plan, the processes and their supervision are those of `up`; only the addresses that they are told
are those of relays.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from factorychain.local.chain import ChainOptions, ChainPlan, plan_chain
from factorychain.local.datadir import DataDir
from factorychain.local.process import ProcessSpec
from factorychain.local.supervisor import Supervisor
from tests.chaos.links import LINKS, Link
from tests.chaos.relay import Relay

AGENTS = "tests.chaos.agents"


class Single:
    """One process of each layer."""

    def __init__(self, folder: Path) -> None:
        """In a folder, whose `data` is the chain's."""
        self._data = DataDir(folder / "data")
        self._data.prepare()
        self._plan = plan_chain(ChainOptions(0, (AGENTS,), None, "process"), self._data)
        self.relays = {each.name: Relay(_target(each, self._plan)) for each in LINKS}
        self._edge = ""
        self._supervisor = Supervisor(self._plan, self._data, ready_file=None, report=report)

    async def start(self) -> None:
        """Returns when everything serves."""
        told: dict[str, dict[str, str]] = {}
        for link in LINKS:
            for process, variable in link.variables:
                address = await self.relays[link.name].listen()
                value = f"nats://{address}" if link.target == "nats" else address
                told.setdefault(process, {})[f"FACTORYCHAIN_{variable}"] = value
        self._edge = f"http://{await self.relays['client→edge'].listen()}"
        self._plan.processes[:] = [
            _telling(each, told.get(each.name, {})) for each in self._plan.processes
        ]
        await self._supervisor.start()

    async def stop(self) -> None:
        """Ends every process."""
        await self._supervisor.stop()
        self._data.release()

    @property
    def edges(self) -> list[str]:
        """Where clients connect."""
        return [self._edge]

    @property
    def pids(self) -> dict[str, int]:
        """Of what runs."""
        return {name: pids[0] for name, pids in self._supervisor.state.pids.items() if pids}

    def restart(self, process: str) -> None:
        """Stops one in order; it is started again."""
        self._supervisor.restart(process)


def report(name: str, what: str) -> None:
    """Into the log."""
    print(json.dumps({"process": name, "what": what}), file=sys.stderr, flush=True)


def _target(link: Link, plan: ChainPlan) -> str:
    """Where the target of a link listens: where `up` would have told the caller that it does."""
    if link.target == "nats":
        return plan.state.nats.removeprefix("nats://")
    if link.target == "edge":
        return plan.state.edge.removeprefix("http://")
    any_layer = next(each for each in plan.processes if each.name == "engine")
    return any_layer.env[f"FACTORYCHAIN_{link.target.upper()}_ADDRESS"]


def _telling(spec: ProcessSpec, addresses: dict[str, str]) -> ProcessSpec:
    return replace(spec, env={**spec.env, **addresses})
