"""The base's own commands, variables, credentials and nats.conf run the whole chain."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy import credentials
from deploy.healthcheck import CHECKS
from factorychain._core.nats_server import server_binary
from factorychain.local.ports import free_ports
from tests.unit.deploy import kubernetes as k8s
from tests.unit.deploy.chain import DEPLOY, NATS_CONF, Workload

FILES = {**credentials.SECRETS, **credentials.CONFIG_MAPS}
PORTS = ("7101", "7102", "7103", "7104", "8080", "4222", "8222")
STOP_TIMEOUT_S = 20
_POLL_S = 0.1


class Machine:
    """Puts what is meant for a cluster on this machine: loopback, free ports, folders of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = folder / "run" / "secrets" / "factorychain"
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))

    def here(self, value: str) -> str:
        value = re.sub(r"factorychain-\w+(?=:)|\$\(POD_IP\)|0\.0\.0\.0", "127.0.0.1", value)
        value = re.sub(r"(?<=:)\d{4}\b", lambda found: self.ports.get(found[0], found[0]), value)
        return value.replace("/run/secrets/factorychain", str(self.secrets))

    def nats_conf(self) -> Path:
        path = self.folder / "etc" / "nats" / "nats.conf"
        path.parent.mkdir(parents=True)
        text = NATS_CONF.read_text().replace("/var/lib/nats", str(self.folder / "store"))
        path.write_text(re.sub(r"0\.0\.0\.0:(\d+)", lambda found: self.here(found[0]), text))
        return path

    def command(self, workload: Workload) -> list[str]:
        if workload.name == "nats":
            return [str(server_binary()), "--config", str(self.nats_conf())]
        return [sys.executable, *workload.command[1:]]

    def environment(self, workload: Workload) -> Mapping[str, str]:
        # Nothing of the machine that the test runs on.
        return {name: self.here(value) for name, value in workload.env.items()}

    @asynccontextmanager
    async def running(self, workload: Workload) -> AsyncIterator[None]:
        with (self.folder / f"{workload.name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command(workload), cwd=self.folder, env=self.environment(workload),
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()

    async def healthy(self, kind: str, port: str) -> None:
        """Returns when the container's health check passes."""
        target = {"grpc": "127.0.0.1:{}", "http": "http://127.0.0.1:{}/readyz"}[kind]
        target = target.format(self.ports[port])
        # Here until there is nothing to find, a process for each look would take the most of the start.
        while await asyncio.to_thread(CHECKS[kind], target) is not None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        command = [sys.executable, "-P", str(DEPLOY / "healthcheck.py"), kind, target]
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0

    def logs(self) -> str:
        return "\n".join(each.read_text()[-2000:] for each in self.folder.glob("*.log"))


async def events_of_one_run(edge: str, token: str) -> list[str]:
    """The types of the events of a run, up to its ending."""
    found: list[str] = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{edge}/v1/ws", protocols=["factorychain.v1.json"]) as socket,
    ):
        await socket.send_json({"op": "auth", "token": token})
        text = "What does the with statement do?"
        await socket.send_json({"op": "start", "id": "1", "input": {"text": text}})
        while not found or found[-1] not in ("agent_completed", "agent_failed", "agent_cancelled"):
            frame = await socket.receive_json(timeout=30)
            assert "error" not in frame, frame
            found += [each["type"] for each in frame.get("events", [])]
    return found


@pytest.mark.timeout(400)
async def test_a_user_of_the_base_gets_an_answer(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    credentials.make(machine.secrets)
    token = credentials.token(
        machine.secrets, user="ada", tenant="acme", audience=credentials.AUDIENCE, ttl_s=600
    )
    try:
        async with AsyncExitStack() as stack, asyncio.timeout(150):
            for workload in k8s.workloads(k8s.rendered(), dict(FILES)):
                await stack.enter_async_context(machine.running(workload))
            for kind, port in (("http", "8080"), *(("grpc", each) for each in PORTS[:4])):
                await machine.healthy(kind, port)
            found = await events_of_one_run(f"http://127.0.0.1:{machine.ports['8080']}", token)
    except (TimeoutError, AssertionError, aiohttp.ClientError) as error:
        raise AssertionError(machine.logs()) from error
    assert (found[0], found[-1]) == ("agent_started", "agent_completed")
