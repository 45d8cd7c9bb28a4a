"""An agent that blocks the loop that it shares with others is named while it does."""

from __future__ import annotations

import time

import pytest
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from factorychain._core.health import HealthService
from factorychain._core.metrics import REGISTRY, Counter
from factorychain._core.watchdog import LoopWatchdog
from tests.integration.agents import samples
from tests.integration.agents.conftest import Chain
from tests.waiting import until_true


def counted(name: str, **labels: str) -> float:
    (found,) = [each for each in REGISTRY if each.described.name == name]
    assert isinstance(found, Counter)
    return found.value(labels)


def serving(health: HealthService) -> bool:
    return health._status("") == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("how", "named"), [("itself", True), ("in a task", True), ("in a callback", False)]
)
async def test_a_run_that_blocks_is_named_counted_and_degrades_the_service(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, how: str, named: bool
) -> None:
    watchdog = LoopWatchdog(interval_s=0.01, warn_s=0.1, settle_s=0.6)
    monkeypatch.setattr(samples, "unblock", lambda: watchdog.blocked > 0)
    health, executor = chain.agents.server.health, chain.agents.executor
    await until_true(lambda: serving(health))
    labels = {"agent": "blocks"} if named else {}
    before = counted("factorychain.agents.loop.blocks", **labels)
    ctx = chain.token("blocks")
    with capture_logs() as lines:
        await watchdog.start()
        await chain.run(ctx, how)
        assert not executor.healthy
        assert counted("factorychain.agents.degraded") == 1
        await until_true(lambda: not serving(health))
        await until_true(lambda: executor.healthy and serving(health))
        await watchdog.stop()
    assert counted("factorychain.agents.degraded") == 0
    assert counted("factorychain.agents.loop.blocks", **labels) > before
    # A busy machine may hold the loop up once more, with nobody to blame.
    (line,) = [each for each in lines if "in block" in each.get("stack", "")]
    assert line["event"] == "the event loop is held up"
    assert (line.get("agent"), line.get("run")) == (("blocks", ctx.run) if named else (None, None))


async def test_a_machine_that_is_slow_while_no_run_is_a_task_degrades_nothing(chain: Chain) -> None:
    watchdog = LoopWatchdog(interval_s=0.01, warn_s=0.1, settle_s=0.6)
    await watchdog.start()
    await until_true(lambda: serving(chain.agents.server.health))
    deadline_s = time.monotonic() + 60
    while not watchdog.blocked and time.monotonic() < deadline_s:
        time.sleep(0.01)  # noqa: ASYNC251 - this is what holds it up
    assert watchdog.blocked
    assert chain.agents.executor.healthy
    assert counted("factorychain.agents.degraded") == 0
    await watchdog.stop()
