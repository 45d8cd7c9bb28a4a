"""A real nats-server for tests: a free port, its own directory, stopped by its process id."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest_asyncio

from factorychain._core.jetstream import JetStream
from factorychain._core.nats_connection import NatsConnection, NatsEndpoint
from factorychain._core.nats_permissions import (
    NatsUser,
    bridge_user,
    engine_user,
    render_server_config,
)
from factorychain._core.nats_server import server_binary
from factorychain._core.settings import NatsSettings
from tests.waiting import until

ENGINE_PASSWORD = "engine-password-of-a-test"
BRIDGE_PASSWORD = "bridge-password-of-a-test"
ADMIN_PASSWORD = "operator-password-of-a-test"
START_TIMEOUT_S = 60


@dataclass
class NatsServer:
    """One server process. `kill` and `start` again keep its port and its data."""

    directory: Path
    shards: int = 1
    url: str = ""
    port: int | None = None
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    async def start(self) -> None:
        config = self.directory / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(
            render_server_config(
                port=self.port,
                store_dir=self.directory / "js",
                users=[
                    engine_user(ENGINE_PASSWORD, self.shards),
                    bridge_user(BRIDGE_PASSWORD, self.shards),
                    NatsUser("admin", ADMIN_PASSWORD, ("$JS.API.>",), ("_INBOX.>",)),
                ],
                ports_dir=self.directory,
            )
        )
        with (self.directory / "nats.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(server_binary()), "--config", str(config), stdout=log, stderr=log
            )
        self.url = await listening_url(self.directory, self.process)
        self.port = int(self.url.rsplit(":", 1)[1])

    async def stop(self, how: int = signal.SIGTERM) -> None:
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.send_signal(how)
            await process.wait()

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """The server keeps its connections and answers nothing, from now on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        # The signal stops one thread after another.
        while not _is_stopped(self.process.pid):
            pass

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def password_file(self, user: str) -> Path:
        path = self.directory / f"{user}.password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(ENGINE_PASSWORD if user == "engine" else BRIDGE_PASSWORD)
        return path

    def endpoint(self, user: str) -> NatsEndpoint:
        return NatsEndpoint(self.url, user, self.password_file(user))

    def settings(self, user: str) -> NatsSettings:
        """What a service of this test is configured with."""
        return NatsSettings(
            nats_url=self.url,
            nats_user=user,
            nats_password_file=self.password_file(user),
            log_shards=self.shards,
        )

    @asynccontextmanager
    async def connected(self, user: str, *, timeout_s: float = 5.0) -> AsyncIterator[JetStream]:
        connection = NatsConnection(self.endpoint(user), f"test-{user}", timeout_s=timeout_s)
        await connection.start()
        try:
            yield JetStream(connection)
        finally:
            await connection.stop()


async def listening_url(directory: Path, process: asyncio.subprocess.Process) -> str:
    """Where a server listens whose `ports_file_dir` and log are in the directory."""

    async def ask() -> str | None:
        assert process.returncode is None, (directory / "nats.log").read_text()
        try:
            ports = json.loads((directory / f"nats-server_{process.pid}.ports").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or half written
            return None
        return next(iter(ports["nats"]), None)

    return await until(ask, START_TIMEOUT_S)


def _is_stopped(pid: int) -> bool:
    """Whether every thread is, by the state after the name in parentheses (proc(5))."""
    stats = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@asynccontextmanager
async def running_nats_server(directory: Path, shards: int = 1) -> AsyncIterator[NatsServer]:
    server = NatsServer(directory, shards)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@pytest_asyncio.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    directory = tmp_path / "nats"
    directory.mkdir()
    async with running_nats_server(directory) as server:
        yield server


@pytest_asyncio.fixture
async def engine_js(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    async with nats_server.connected("engine") as js:
        yield js


@pytest_asyncio.fixture
async def bridge_js(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    async with nats_server.connected("bridge") as js:
        yield js
