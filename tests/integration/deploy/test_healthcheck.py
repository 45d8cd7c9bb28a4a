"""healthcheck.py against real servers: what a container's health check answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from aiohttp import web
from grpc_health.v1 import health_pb2_grpc

from factorychain._core.health import HealthService

SCRIPT = Path(__file__).parents[3] / "deploy" / "healthcheck.py"


async def check(*arguments: str) -> tuple[int | None, str]:
    """The exit status, and what was said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(SCRIPT), *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


@pytest_asyncio.fixture
async def serving() -> AsyncIterator[tuple[HealthService, str]]:
    """A health service that is SERVING, and its address."""
    health = HealthService([])
    health.set_serving(True)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield health, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_service_that_serves_is_healthy(serving: tuple[HealthService, str]) -> None:
    assert await check("grpc", serving[1]) == (0, "")


async def test_a_service_that_takes_no_work_is_not(serving: tuple[HealthService, str]) -> None:
    health, address = serving
    health.set_serving(False)
    assert await check("grpc", address) == (1, f"{address} does not serve: NOT_SERVING\n")


async def test_nobody_there_is_not_healthy(unused_tcp_port: int) -> None:
    for arguments in (
        ["grpc", f"127.0.0.1:{unused_tcp_port}"],
        ["http", f"http://127.0.0.1:{unused_tcp_port}/"],
    ):
        status, said = await check(*arguments)
        assert status == 1
        assert "does not serve" in said


@pytest.mark.parametrize(("answer", "expected"), [(200, 0), (503, 1)])
async def test_http_is_healthy_if_it_answers_200(answer: int, expected: int) -> None:
    async def readyz(_: web.Request) -> web.Response:
        return web.Response(status=answer)

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0]
    assert (await check("http", f"http://127.0.0.1:{port}/readyz"))[0] == expected
    await runner.cleanup()


async def test_a_wrong_call_says_how_to_call_it() -> None:
    status, said = await check("tcp", "127.0.0.1:1")
    assert status == 2
    assert "healthcheck.py grpc HOST:PORT" in said
