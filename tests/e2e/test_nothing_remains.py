"""After a thousand runs nothing of them is left but their records and their events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.nats_endpoint import NatsEndpoint
from tests.e2e.chain import Chain, running_chain
from tests.e2e.held import LAYERS, held
from tests.e2e.sockets import Socket, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUNS = 1000
USERS = 20
# Every user in each of their threads: what is known of a thread is remembered, within bounds.
_WARM_UP = 160
_RELEASED_WITHIN_S = 5.0
# Records of what was, bounded by design: verified tokens, records read, statistics themselves.
_BOUNDED = ("token_cache", "metrics", "VerifiedUser", "UserExecutionContext", "Principal")
_GROWTH_BYTES = 24 * 1024 * 1024

_KINDS = (
    ("echo", "fine", "agent_completed"),
    ("canary", "refused!", "agent_failed"),
    ("breaks", "bug", "agent_failed"),
    ("waits", "600", "agent_cancelled"),
    ("steps", "20", "agent_completed"),
)


@pytest.mark.timeout(200)
async def test_nothing_of_a_thousand_runs_remains_after_five_seconds(tmp_path: Path) -> None:
    env = {
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    async with running_chain(tmp_path / "chain", env=env) as chain:
        await _runs(chain, _WARM_UP)
        await asyncio.sleep(_RELEASED_WITHIN_S)
        before = {layer: await held(chain, layer) for layer in LAYERS}
        await _runs(chain, RUNS)
        await asyncio.sleep(_RELEASED_WITHIN_S)
        after = {layer: await held(chain, layer) for layer in LAYERS}
        assert await _admissions(chain) == []
    for layer in LAYERS:
        _assert_nothing_more(layer, before[layer], after[layer])
    assert list((tmp_path / "tmp").iterdir()) == []


async def _runs(chain: Chain, count: int) -> None:
    await asyncio.gather(*(_user(chain, f"worker-{i}", count // USERS) for i in range(USERS)))


async def _user(chain: Chain, user: str, count: int) -> None:
    for index in range(count):
        agent, text, expected = _KINDS[index % len(_KINDS)]
        async with connected(chain.state.edge, chain.token(user)) as socket:
            started = await socket.start(agent, text, thread=f"{user}-{index % 7}")
            if agent == "waits":
                await socket.event(started["run"], "agent_thinking")
                await socket.result("cancel", run=started["run"])
            ending = await socket.ending(started["run"])
            assert ending["type"] == expected, ending
            await _leave(socket, index)


async def _leave(socket: Socket, index: int) -> None:
    """Some say goodbye, some vanish."""
    if index % 3 == 0:
        transport = socket.ws.get_extra_info("transport", None)
        if transport is not None:
            transport.abort()


def _assert_nothing_more(layer: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    more = {
        kind: f"{before['objects'].get(kind, 0)} → {count}"
        for kind, count in after["objects"].items()
        if count > before["objects"].get(kind, 0) and not any(known in kind for known in _BOUNDED)
    }
    assert more == {}, f"{layer} still holds objects"
    assert after["tasks"] <= before["tasks"], f"{layer} still has tasks"
    assert after["descriptors"] <= before["descriptors"] + 2, f"{layer} still has descriptors"
    grown = after["rss_bytes"] - before["rss_bytes"]
    assert grown < _GROWTH_BYTES, f"{layer} grew by {grown / 2**20:.1f} MiB"


async def _admissions(chain: Chain) -> list[str]:
    """Every admission entry that is left in any user's record."""
    password = chain.data.path / "keys" / "nats-engine"
    connection = NatsConnection(NatsEndpoint(chain.state.nats, "engine", password), "engine")
    await connection.start()
    try:
        users = KvBucket.of(JetStream(connection), "users")
        found = []
        async for entry in users.scan(">"):
            record = orjson.loads(entry.value) if entry.value else {}
            found += [f"{entry.key}: {each}" for each in record.get("active", [])]
        return found
    finally:
        await connection.stop()
