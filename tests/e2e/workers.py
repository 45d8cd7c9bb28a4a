"""Users who start run after run of every kind, and what of it may be left in the chain's processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import KvBucket
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.nats_endpoint import NatsEndpoint
from tests.e2e.chain import Chain
from tests.e2e.held import LAYERS, held
from tests.e2e.sockets import Socket, connected

USERS = 20
RELEASED_WITHIN_S = 5.0
_LOOKS = 6
_LOOK_AGAIN_S = 3.0
# Records of what was, bounded by design: verified tokens, records read, statistics themselves. And the list of
# agents: one of the start is among what is frozen, and is counted only when it is read again.
_BOUNDED = (
    "token_cache", "metrics", "VerifiedUser", "UserExecutionContext", "Principal", "AgentInfo",
)  # fmt: skip


class Kind(NamedTuple):
    """A kind of run."""

    agent: str
    text: str
    ending: str
    """Type of the event that it ends with; one that is cancelled is told to stop once it thinks."""
    reasons: tuple[str, ...] = ()
    """What its ending may name as its reason; nothing here: any."""


KINDS = (
    Kind("echo", "fine", "agent_completed"),
    Kind("canary", "refused!", "agent_failed"),
    Kind("breaks", "bug", "agent_failed"),
    Kind("waits", "600", "agent_cancelled"),
    Kind("steps", "20", "agent_completed"),
)


async def run_all(
    chain: Chain,
    count: int,
    kinds: Sequence[Kind] = KINDS,
    *,
    users: int = USERS,
    threads: int = 7,
    name: str = "worker",
) -> None:
    """So many runs in all, of every kind.

    Each user takes turns among so many threads: records of all of them are there after the warm-up.
    """
    each, left = divmod(count, users)
    assert left == 0, f"{count} runs cannot be shared out among {users} users"
    turns = [
        [
            (kinds[(n + index) % len(kinds)], f"{name}-{n}-{index % threads}")
            for index in range(each)
        ]
        for n in range(users)
    ]
    await asyncio.gather(*(_user(chain, f"{name}-{n}", own) for n, own in enumerate(turns)))


async def _user(chain: Chain, user: str, turns: Sequence[tuple[Kind, str]]) -> None:
    """One run after the other, each in its thread."""
    # The same for all: each one that was verified is remembered, within bounds.
    token = chain.token(user, ttl_s=3600)
    for index, (kind, thread) in enumerate(turns):
        async with connected(chain.state.edge, token) as socket:
            started = await socket.start(kind.agent, kind.text, thread=thread)
            if kind.ending == "agent_cancelled":
                await socket.event(started["run"], "agent_thinking")
                await socket.result("cancel", run=started["run"])
            ending = await socket.ending(started["run"])
            assert ending["type"] == kind.ending, ending
            assert not kind.reasons or ending["data"]["reason"] in kind.reasons, ending
            _leave(socket, index)


def _leave(socket: Socket, index: int) -> None:
    """Some say goodbye, some vanish."""
    if index % 3 == 0:
        transport = socket.ws.get_extra_info("transport", None)
        if transport is not None:
            transport.abort()


async def assert_nothing_more(
    chain: Chain, before: dict[str, dict[str, Any]], growth_bytes: int
) -> None:
    """Every layer holds no more than it held before, as it says itself (`held`).

    It is looked after the time in which everything has to be released, and a few times more: what
    comes and goes anyway may be there in one moment, and a machine that is busy is slower.
    """
    await asyncio.sleep(RELEASED_WITHIN_S)
    for layer in LAYERS:
        for left in reversed(range(_LOOKS)):
            more = _more(before[layer], await held(chain, layer), growth_bytes)
            if not more:
                break
            assert left, f"{layer} still holds {more}"
            await asyncio.sleep(_LOOK_AGAIN_S)


def _more(before: dict[str, Any], after: dict[str, Any], growth_bytes: int) -> list[str]:
    more = [
        f"{kind}: {before['objects'].get(kind, 0)} → {count}"
        for kind, count in after["objects"].items()
        if count > before["objects"].get(kind, 0) and not any(known in kind for known in _BOUNDED)
    ]
    for what, allowed in (("tasks", 0), ("descriptors", 2), ("rss_bytes", growth_bytes)):
        if after[what] > before[what] + allowed:
            more.append(f"{what}: {before[what]} → {after[what]}")
    known = after["tokens_remembered"].keys() | before["tokens_remembered"].keys()
    for kind in known:
        was, now = _of_no_token(before, kind), _of_no_token(after, kind)
        if now > was:
            more.append(f"{kind} of no token that is remembered: {was} → {now}")
    return more


def _of_no_token(held: dict[str, Any], kind: str) -> int:
    """Objects of a class beside those that tokens were verified to say, which are remembered."""
    return int(held["objects"].get(kind, 0)) - int(held["tokens_remembered"].get(kind, 0))


async def admissions(chain: Chain) -> list[str]:
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
