"""A chain with a relay in every connection: `python -m tests.chaos.host FORM FOLDER`.

Orders come as lines of JSON on the Unix socket `control.sock` in the folder, one answer a line:
`{"do": "cut" | "silence" | "heal", "link": NAME}`, `{"do": "restart", "process": NAME}`, `{"do": "where"}`.
Answers come once everything serves. Who gives the orders has gone: everything ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import uvloop

from tests.chaos.relay import Relay
from tests.chaos.replicas import Replicas
from tests.chaos.single import Single

Answer = dict[str, object]


class Parts(Protocol):
    """The processes of a form."""

    @property
    def relays(self) -> Mapping[str, Relay]:
        """By the names of links."""

    async def start(self) -> None:
        """Returns when everything serves."""

    async def stop(self) -> None:
        """Ends every process."""

    @property
    def edges(self) -> list[str]:
        """Where clients connect."""

    @property
    def pids(self) -> dict[str, int]:
        """Of what runs."""

    def restart(self, process: str) -> None:
        """Stops one in order; it is started again."""


class Host:
    """Does what it is told to them."""

    def __init__(self, parts: Parts, end: Callable[[], object]) -> None:
        """`end` is called when who gives the orders has gone, however it went."""
        self.serving = asyncio.Event()
        self._parts = parts
        self._end = end

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take orders until the other side leaves."""
        try:
            while line := await reader.readline():
                await self.serving.wait()
                writer.write(json.dumps(self._obey(json.loads(line))).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()
            self._end()

    def _obey(self, order: dict[str, str]) -> Answer:
        if order["do"] == "where":
            return {"edges": self._parts.edges, "pids": self._parts.pids}
        if order["do"] == "restart":
            self._parts.restart(order["process"])
            return {}
        relay = self._parts.relays[order["link"]]
        if order["do"] == "heal":
            relay.heal()
            return {}
        return {"connections": relay.cut() if order["do"] == "cut" else relay.silence()}


async def _main(form: str, folder: Path) -> None:
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    parts: Parts = Single(folder) if form == "single" else Replicas(folder)
    host = Host(parts, me.cancel)
    server = await asyncio.start_unix_server(host.serve, str(folder / "control.sock"))
    try:
        await parts.start()
        host.serving.set()
        await loop.create_future()  # until it is cancelled
    finally:
        server.close()
        for each in parts.relays.values():
            each.heal()
        await parts.stop()
        await asyncio.gather(*(each.stop() for each in parts.relays.values()))


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(_main(sys.argv[1], Path(sys.argv[2])))
