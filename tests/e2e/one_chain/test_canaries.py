"""Many users at once with everything the same but themselves: nobody sees anything of another."""

from __future__ import annotations

import asyncio
import re
import secrets

import pytest

from factorychain._core.ids import Principal
from factorychain.local.trace_sink import TraceSink
from tests.e2e.chain import Chain
from tests.e2e.overhearing import overhearing
from tests.e2e.sockets import Socket, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

USERS = 20
_CANARY = re.compile(r"canary-[0-9a-f]{16}")


async def test_twenty_users_on_one_thread_id_with_one_request_id_see_only_themselves(
    chain: Chain, traces: TraceSink
) -> None:
    canaries = {f"bird-{index}": f"canary-{secrets.token_hex(8)}" for index in range(USERS)}
    log_start = len(chain.log())
    async with overhearing(chain) as overheard:
        sockets = await asyncio.gather(
            *(_one_user(chain, user, canary) for user, canary in canaries.items())
        )
    ukeys = {canary: Principal("default", user).ukey for user, canary in canaries.items()}
    overheard.check(ukeys, USERS)
    for (user, own), texts in zip(canaries.items(), sockets, strict=True):
        found = set(_CANARY.findall("".join(texts)))
        assert found == {own}, f"{user} saw {found - {own}}"
    run_of = _runs(sockets)
    for line in chain.log()[log_start:].splitlines():
        found = set(_CANARY.findall(line))
        assert len(found) <= 1, line
        for canary in found:
            # A line that carries a canary at all is what the agent printed, named by its own run.
            assert run_of[canary] & set(re.findall(r"r[a-z2-7]{24}", line)), line
    for span in list(traces.spans):
        assert not _CANARY.search(str(span)), span


async def _one_user(chain: Chain, user: str, canary: str) -> list[str]:
    async with connected(chain.state.edge, chain.token(user)) as socket:
        for suffix in ("", "!"):
            started = await socket.start(
                "canary",
                canary + suffix,
                thread="t1",
                request_id=f"same{len(suffix)}",
                metadata={"canary": canary},
                context=[{"description": "canary", "value": canary}],
            )
            ending = await socket.ending(started["run"])
            assert ending["type"] == ("agent_failed" if suffix else "agent_completed")
        await _own_views(socket, canary)
        return socket.texts


async def _own_views(socket: Socket, canary: str) -> None:
    """What the user reads afterwards is its own as well."""
    thread = await socket.result("thread", thread="t1")
    assert len(thread["runs"]) == 2
    listed = await socket.result("threads")
    assert [each["thread"] for each in listed["threads"]] == ["t1"]
    await socket.result("subscribe", thread="t1", after=0)
    await socket.wait_for(lambda f: f["op"] == "caught_up")


def _runs(sockets: list[list[str]]) -> dict[str, set[str]]:
    """The runs that each canary's owner was told of."""
    found: dict[str, set[str]] = {}
    for texts in sockets:
        text = "".join(texts)
        (canary,) = set(_CANARY.findall(text))
        found[canary] = set(re.findall(r'"run":"(r[a-z2-7]{24})"', text))
    return found
