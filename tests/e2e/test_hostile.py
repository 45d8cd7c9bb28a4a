"""What an agent that means harm can do: nothing that another user would notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio

from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import Socket, connected
from tests.waiting import until_true

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.alone]

_CANARY = "a-secret-of-the-operator"
_QUIET_USERS = 20
_THOUGHTS = 60
_ENDED_WITHIN_S = 40


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """A chain whose agents have processes of their own."""
    env = {
        "OPERATORS_SECRET": _CANARY,
        "FACTORYCHAIN_ISOLATION": "process",
        "FACTORYCHAIN_AGENT_PROCESSES": "true",
        "FACTORYCHAIN_RUN_IDLE_S": "8",
        "FACTORYCHAIN_CANCEL_GRACE_S": "1",
    }
    folder = tmp_path_factory.mktemp("hostile")
    async with running_chain(folder, ("--agents", "tests.e2e.hostile"), env) as running:
        yield running


def _world(chain: Chain) -> str:
    """What a run would need to know to do harm."""
    state = chain.state
    urls = [state.edge, state.nats, *(f"//{each}" for each in (state.engine, state.agents))]
    files = [each for each in chain.folder.rglob("*") if each.is_file()]
    return json.dumps(
        {
            "ports": [str(urlsplit(each).port) for each in urls],
            "sockets": [str(each) for each in chain.folder.rglob("*") if each.is_socket()],
            "files": [str(each) for each in files],
            "folders": [str(chain.folder), str(Path(__file__).parent)],
            "canaries": [_CANARY],
            "pid": [str(chain.pid("agents"))],
        }
    )


async def test_a_run_gets_at_nothing_that_is_not_its_own(chain: Chain) -> None:
    world = _world(chain)
    assert json.loads(world)["sockets"], "the services' own sockets are there to be tried"
    async with connected(chain.state.edge, chain.token("victim")) as victim:
        # From the same batch of processes as the first of those that look for it.
        kept = (await victim.start("keeps", "a file of its own"))["run"]
        await victim.event(kept, "agent_thinking")
        for user in ("mallory", "trent"):
            assert await _probed(chain, user, world) == {}
        await _cancel(victim, kept)


async def _probed(chain: Chain, user: str, world: str) -> dict[str, str]:
    """What a run that tries everything got, by name."""
    async with connected(chain.state.edge, chain.token(user)) as socket:
        started = await socket.start("probes", world)
        ending = await socket.ending(started["run"])
    assert ending["type"] == "agent_completed", ending["data"]
    return {name: what for name, what in ending["data"]["output"].items() if what}


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "agent_completed"), ("exit", "agent_failed"), ("stay", "agent_cancelled")],
)
async def test_processes_that_a_run_leaves_behind_end_with_it(
    chain: Chain, text: str, kind: str
) -> None:
    async with connected(chain.state.edge, chain.token("multiplier")) as socket:
        started = await socket.start("multiplies", text)
        left = (await socket.event(started["run"], "custom"))["data"]["data"]
        if text == "stay":
            assert all(psutil.pid_exists(pid) for pid in left)
            await _cancel(socket, started["run"])
        assert (await socket.ending(started["run"]))["type"] == kind
    await until_true(lambda: not [pid for pid in left if psutil.pid_exists(pid)])


# Those that fight for the processor may fall silent before they have had all that they are allowed.
_STARVED = "CPU_LIMIT or UNRESPONSIVE"
HOSTILE = {
    "spins": ("", _STARVED),
    "eats": ("", "MEMORY_LIMIT"),
    "sleeps": ("", "UNRESPONSIVE"),
    "bombs": ("", _STARVED),
    "dies-segv": ("segv", "CRASHED"),
    "dies-exit": ("exit", "CRASHED"),
    "dies-close": ("close", "CRASHED"),
    "dies-nonsense": ("nonsense", "CRASHED"),
    "floods": ("", "USER"),
    "stays": ("", "USER"),
}


async def test_all_harm_at_once_ends_for_its_reason_and_holds_up_nobody(chain: Chain) -> None:
    quiet = [asyncio.create_task(_quiet(chain, f"quiet-{n}")) for n in range(_QUIET_USERS)]
    reasons = await asyncio.gather(*(_hostile(chain, name) for name in HOSTILE))
    ended = dict(zip(HOSTILE, reasons, strict=True))
    assert {n: r for n, r in ended.items() if r not in HOSTILE[n][1].split(" or ")} == {}
    await asyncio.gather(*quiet)


async def _quiet(chain: Chain, user: str) -> None:
    """A user who sees every thought of their own run, in order, and nobody else's."""
    async with connected(chain.state.edge, chain.token(user)) as socket:
        started = await socket.start("tells", f"{user}|{_THOUGHTS}|200")
        ending = await socket.ending(started["run"], 120)
        assert ending["type"] == "agent_completed", ending["data"]
        thoughts = [e["data"]["text"] for e in socket.events() if e["type"] == "agent_thinking"]
        assert thoughts == [f"{user} {index}" for index in range(_THOUGHTS)]
        assert [e["seq"] for e in socket.events()] == list(range(1, len(socket.events()) + 1))


async def _hostile(chain: Chain, name: str) -> str:
    """The reason with which a hostile run ends."""
    text, reason = HOSTILE[name]
    async with connected(chain.state.edge, chain.token(f"hostile-{name}")) as socket:
        started = await socket.start(name.partition("-")[0], text)
        if reason == "USER":
            await socket.event(started["run"], "agent_thinking")
            await _cancel(socket, started["run"])
        ending = await socket.ending(started["run"], _ENDED_WITHIN_S)
        found: str = ending["data"]["reason"]
        return found


async def _cancel(socket: Socket, run: str) -> None:
    answered = await socket.call("cancel", run=run)
    assert "result" in answered, answered
