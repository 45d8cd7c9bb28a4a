"""`factorychain up` with a relay in every connection: `python -m tests.chaos.host DATA READY CONTROL`.

The plan, the processes and their supervision are those of `up`; only the addresses that they are told
are those of relays. Orders come as lines of JSON on the Unix socket CONTROL, one answer a line:
`{"do": "cut" | "silence" | "heal", "link": NAME}`, `{"do": "restart", "process": NAME}`, `{"do": "edge"}`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from factorychain.local.chain import ChainOptions, ChainPlan, plan_chain
from factorychain.local.datadir import DataDir
from factorychain.local.process import ProcessSpec
from factorychain.local.supervisor import Supervisor
from tests.chaos.links import LINKS, Link
from tests.chaos.relay import Relay

AGENTS = "tests.chaos.agents"
Answer = dict[str, object]


class Host:
    """The chain, its relays, and what may be done to them."""

    def __init__(self, data: DataDir, ready_file: Path, stopping: asyncio.Event) -> None:
        """`stopping` is set when who gives the orders has gone, however it went."""
        self._stopping = stopping
        self._plan = plan_chain(ChainOptions(0, (AGENTS,), None, "process"), data)
        self._relays = {each.name: Relay(_target(each, self._plan)) for each in LINKS}
        self._edge = ""
        self.supervisor = Supervisor(self._plan, data, ready_file=ready_file, report=_report)

    async def start(self) -> None:
        """Returns when everything serves."""
        told: dict[str, dict[str, str]] = {}
        for link in LINKS:
            for process, variable in link.variables:
                address = await self._relays[link.name].listen()
                value = f"nats://{address}" if link.target == "nats" else address
                told.setdefault(process, {})[f"FACTORYCHAIN_{variable}"] = value
        self._edge = f"http://{await self._relays['client→edge'].listen()}"
        self._plan.processes[:] = [
            _telling(each, told.get(each.name, {})) for each in self._plan.processes
        ]
        await self.supervisor.start()

    async def stop(self) -> None:
        """Ends everything."""
        for each in self._relays.values():
            each.heal()
        await self.supervisor.stop()
        await asyncio.gather(*(each.stop() for each in self._relays.values()))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take orders until the other side leaves."""
        while line := await reader.readline():
            writer.write(json.dumps(self._obey(json.loads(line))).encode() + b"\n")
            await writer.drain()
        writer.close()
        self._stopping.set()

    def _obey(self, order: dict[str, str]) -> Answer:
        if order["do"] == "edge":
            return {"edge": self._edge}
        if order["do"] == "restart":
            self.supervisor.restart(order["process"])
            return {}
        relay = self._relays[order["link"]]
        if order["do"] == "heal":
            relay.heal()
            return {}
        return {"connections": relay.cut() if order["do"] == "cut" else relay.silence()}


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


def _report(name: str, what: str) -> None:
    print(json.dumps({"process": name, "what": what}), file=sys.stderr, flush=True)


async def _main(data: DataDir, ready_file: Path, control: Path) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    host = Host(data, ready_file, stopping)
    try:
        await host.start()
        server = await asyncio.start_unix_server(host.serve, str(control))
        await stopping.wait()
        server.close()
    finally:
        await host.stop()


if __name__ == "__main__":
    directory = DataDir(Path(sys.argv[1]))
    directory.prepare()
    try:
        uvloop.run(_main(directory, Path(sys.argv[2]), Path(sys.argv[3])))
    finally:
        directory.release()
