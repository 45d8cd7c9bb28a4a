"""`python -m tests.bench.hostile_users EDGE`: users whose runs do all the harm that they can.

A program of its own with little weight: in life their sockets are read on other machines. It reads one
token for each user from stdin, starts each user's runs, starts them again when they end, says on stdout
when all are there, and stops them when its stdin ends; then it says what became of them, as JSON.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import sys
from pathlib import Path

import aiohttp
import orjson
import uvloop

from tests.e2e.sockets import ENDINGS

RUNS_EACH = 2
USERS = {"spin": "", "allocate": "", "flood": "1000", "fork": ""}
"""By agent, what it is told."""
_NICE = 19
_AGAIN_S = 0.2


class Place:
    """One of a user's places to run, never left empty."""

    def __init__(self, edge: str, token: str, agent: str, number: int) -> None:
        self._edge = edge
        self._token = token
        self._agent = agent
        self._thread = f"hostile-{number}"
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._run = ""
        self._stopping = False
        self.there = asyncio.Event()
        self.became: collections.Counter[str] = collections.Counter()
        self.read_bytes = 0

    async def live(self) -> None:
        """Run until stopped; a socket that was closed is opened again."""
        async with aiohttp.ClientSession() as session:
            while not self._stopping:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await self._on_socket(session)
                await asyncio.sleep(_AGAIN_S)

    async def stop(self) -> None:
        """The last run is cancelled."""
        self._stopping = True
        if self._ws is not None and self._run:
            with contextlib.suppress(ConnectionError):
                await self._ws.send_json({"op": "cancel", "id": "stop", "run": self._run})

    async def _on_socket(self, session: aiohttp.ClientSession) -> None:
        url, protocols = f"{self._edge}/v1/ws", ["factorychain.v1.json"]
        async with session.ws_connect(url, protocols=protocols, max_msg_size=0) as ws:
            self._ws = ws
            await ws.send_json({"op": "auth", "token": self._token})
            assert (await ws.receive_json())["op"] == "ready"
            while not self._stopping:
                await self._one_run(ws)
                if ws.closed:
                    self.became[f"socket closed {ws.close_code}"] += 1
                    return
                await asyncio.sleep(_AGAIN_S)

    async def _one_run(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.send_json(
            {
                "op": "start",
                "id": "start",
                "agent": f"bench-{self._agent}",
                "thread": self._thread,
                "input": {"text": USERS[self._agent]},
                # That of a socket which was closed goes on.
                "on_busy": "interrupt",
            }
        )
        async for message in ws:
            self.read_bytes += len(message.data)
            if self._is_over(message.data):
                return

    def _is_over(self, text: str) -> bool:
        """Whether the run has ended or was refused. It looks closely at as little as it can."""
        if text.startswith('{"op":"events"'):
            self.there.set()
            if not any(ending in text for ending in ENDINGS):
                return False
            event = orjson.loads(text)["events"][-1]
            self.became[f"{event['type']} {event['data'].get('reason', '')}".strip()] += 1
            return event["run"] == self._run and event["type"] in ENDINGS
        frame = orjson.loads(text)
        if frame.get("id") != "start":
            return False
        if "error" in frame:
            self.became[f"refused {frame['error']['reason']}"] += 1
            return True
        self._run = frame["result"]["run"]
        return False


async def _harm(edge: str) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    places: dict[str, list[Place]] = {}
    for agent in USERS:
        token = (await reader.readline()).decode().strip()
        places[agent] = [Place(edge, token, agent, number) for number in range(RUNS_EACH)]
    every = [place for several in places.values() for place in several]
    living = [asyncio.create_task(place.live()) for place in every]
    for place in every:
        await place.there.wait()
    print("there", flush=True)
    await reader.read()
    for place in every:
        await place.stop()
    await asyncio.wait(living, timeout=30)
    print(json.dumps({agent: _sum_up(several) for agent, several in places.items()}), flush=True)


def _sum_up(places: list[Place]) -> dict[str, int]:
    became = sum((each.became for each in places), collections.Counter())
    return {**became, "MB read": round(sum(each.read_bytes for each in places) / 1e6)}


if __name__ == "__main__":
    # A session of its own, for kernels that group by it: elsewhere it would be another machine.
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE))
    os.nice(_NICE)
    uvloop.run(_harm(sys.argv[1]))
