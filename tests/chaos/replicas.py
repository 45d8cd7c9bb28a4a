"""Two replicas of every layer over three NATS servers, with a relay before each, started again when they die.

Invariant: a pid is told only while its process takes work; a NATS server does once it has what it missed,
so that whoever waits for it never takes a second node from the cluster. One that hangs, or whose storage is
disabled, as after it has found no room on its disk, is ended as an orchestrator's probe would have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from factorychain.local.process import ChildProcess, ProcessSpec
from factorychain.local.readiness import layer_serves
from tests.chaos.forms import REPLICATED, layer_of, replicas_of
from tests.chaos.links import LINKS
from tests.chaos.relay import Relay
from tests.chaos.single import AGENTS, report
from tests.e2e.replicated import Replicated

_LINK: Final = {
    (process, link.target): link.name for link in LINKS for process, _ in link.variables
}
"""Whom a process reaches over which link; agents say where they are reached themselves."""
_POLL_S: Final = 0.1
_CALL_S: Final = 2.0
_GRACE_S: Final = 15.0
_UNWELL_S: Final = 3.0
_SILENT_S: Final = 15.0


class _Relayed(Replicated):
    """Everybody is told the addresses of relays."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(folder, env)
        self.relays: dict[str, Relay] = {}
        self.told: dict[str, str] = {}

    async def relay(self) -> None:
        for link in LINKS:
            for index in range(replicas_of(link.target)):
                name = f"{link.name}-{index}"
                edge = link.target == "edge"
                target = self.edges[index] if edge else self.listens(link.target, index)
                self.relays[name] = Relay(target.removeprefix("http://"))
                self.told[name] = await self.relays[name].listen()

    def address(self, caller: str, layer: str, index: int) -> str:
        link = _LINK.get((caller, layer))  # nobody calls where there is none
        return self.listens(layer, index) if link is None else self.told[f"{link}-{index}"]


class Replicas:
    """The processes, looked after."""

    def __init__(self, folder: Path) -> None:
        """In a folder, whose `data` is the chain's."""
        told = {key: value for key, value in os.environ.items() if key.startswith("FACTORYCHAIN_")}
        env = {"FACTORYCHAIN_AGENT_MODULES": AGENTS, "FACTORYCHAIN_ISOLATION": "process", **told}
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self._chain = _Relayed(folder / "data", env)
        self.relays = self._chain.relays
        self._children: dict[str, ChildProcess] = {}
        self._serving: dict[str, int] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Returns when everything serves."""
        await self._chain.relay()
        self._chain.make_secrets()
        for name in sorted(REPLICATED.processes, key=lambda each: not each.startswith("nats")):
            command, env = self._chain.command(name)
            log = str(self._chain.log_path(name))
            child = ChildProcess(ProcessSpec(name, command, env, log_path=log), self._changed)
            self._children[name] = child
            child.start()
        while len(self._serving) < len(self._children):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Ends every process."""
        for each in self._looking.values():
            each.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)
        for layer in ("engine", "agents", "emitter", "bridge", "nats"):
            of_it = [self._children[name] for name in self._chain.names(layer)]
            await asyncio.gather(*(each.stop(_GRACE_S) for each in of_it))

    @property
    def edges(self) -> list[str]:
        """Where clients connect."""
        links = [f"client→edge-{index}" for index in range(replicas_of("edge"))]
        return [f"http://{self._chain.told[each]}" for each in links]

    @property
    def pids(self) -> dict[str, int]:
        """Of those that take work."""
        return self._serving

    def restart(self, process: str) -> None:
        """Stops one in order; it is started again."""
        self._children[process].restart(_GRACE_S)

    def _changed(self, child: ChildProcess, what: str) -> None:
        name = child.spec.name
        report(name, what)
        self._serving.pop(name, None)
        if name in self._looking:
            self._looking.pop(name).cancel()
        if child.pid is not None:
            looking = self._look_after_nats if layer_of(name) == "nats" else self._until_serving
            self._looking[name] = asyncio.create_task(looking(name, child.pid))

    async def _until_serving(self, name: str, pid: int) -> None:
        layer, index = name.split("-")
        while not await layer_serves(self._chain.listens(layer, int(index))):  # noqa: ASYNC110 - another process
            await asyncio.sleep(_POLL_S)
        self._serving[name] = pid

    async def _look_after_nats(self, name: str, pid: int) -> None:
        health = self._chain.health(int(name.partition("-")[2]))
        loop = asyncio.get_running_loop()
        well_at, patience_s = loop.time(), _SILENT_S
        while loop.time() < well_at + patience_s:
            status = await _status(health)
            if status == HTTPStatus.OK:
                self._serving[name], well_at = pid, loop.time()
            elif status is None:
                self._serving.pop(name, None)
                patience_s = _SILENT_S
            elif await _status(f"{health}?js-enabled-only=true") == HTTPStatus.OK:
                well_at = loop.time()  # it lacks something that it missed
            else:
                self._serving.pop(name, None)
                patience_s = _UNWELL_S
            await asyncio.sleep(_POLL_S)
        report(name, "hangs or stores nothing any more: it is restarted")
        self._serving.pop(name, None)
        self._children[name].restart(_GRACE_S)


async def _status(url: str) -> int | None:
    """With which a NATS server answers; None: it does not."""
    address, _, path = url.removeprefix("http://").partition("/")
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CALL_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
                words = (await reader.readline()).split()
                return int(words[1]) if len(words) > 1 else None
            finally:
                writer.close()
    return None
