"""Users whose runs are cancelled, cut off and asked for again at random moments: none leaks.

`FACTORYCHAIN_CANCELS_SEED` repeats what a failure names; `FACTORYCHAIN_CANCELS_RUNS` makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from factorychain._core.ids import Principal
from factorychain.local.trace_sink import TraceSink
from tests.e2e.chain import Chain, running_chain
from tests.e2e.held import LAYERS, held
from tests.e2e.impatient import Impatient, endings
from tests.e2e.overhearing import overhearing
from tests.e2e.residue import CANARY
from tests.e2e.sinks import FolderWatch, at_rest, back_at, children, stored
from tests.e2e.sockets import Frame
from tests.load import amount

pytestmark = pytest.mark.asyncio(loop_scope="session")

USERS = amount(16, 50)
RUNS = int(os.environ.get("FACTORYCHAIN_CANCELS_RUNS", "2"))
SEED = int(os.environ.get("FACTORYCHAIN_CANCELS_SEED", str(time.time_ns() % 100_000)))
# As many at all times: what there is afterwards can be compared with what there was before.
IDLE = 4
_RUN = re.compile(r"r[a-z2-7]{24}")


@pytest_asyncio.fixture(loop_scope="session")
async def sink() -> AsyncIterator[TraceSink]:
    traces = TraceSink()
    await traces.start()
    yield traces
    await traces.stop()


@pytest.mark.load
@pytest.mark.timeout(500 + 20 * RUNS)
async def test_runs_that_are_cancelled_at_random_leak_nothing_and_leave_nothing(
    tmp_path: Path, sink: TraceSink
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "FACTORYCHAIN_ISOLATION": "process",
        "FACTORYCHAIN_IDLE_PROCESSES_MIN": str(IDLE),
        "FACTORYCHAIN_IDLE_PROCESSES_MAX": str(IDLE),
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "TMPDIR": str(temporary),
    }
    agents = ("--agents", "tests.e2e.residue")
    async with running_chain(tmp_path / "chain", agents, env) as chain:
        # What is opened once and kept is open from now on.
        early = Impatient(chain, "early", SEED)
        await early.live(5)
        rest = await at_rest(chain, temporary, IDLE)
        users = [Impatient(chain, f"user-{index}", SEED) for index in range(USERS)]
        async with FolderWatch(temporary, _canaries) as folders, overhearing(chain) as overheard:
            await asyncio.gather(*(each.live(RUNS) for each in users))
        overheard.check(
            {each.canary: Principal("default", each.name).ukey for each in users}, USERS // 4
        )
        users.append(early)
        for layer in LAYERS:  # the labels of all instruments, into the log
            await held(chain, layer)
        await _each_run_has_one_ending(users)
        assert await back_at(rest, chain, temporary, IDLE) == rest, f"seed {SEED}"
        _nothing_in_sockets(users)
        _nothing_in_folders(users, folders)
        _nothing_in_log(chain, users)
        await _nothing_in_store(chain, users)
        everybody = children(chain)
    assert not [each for each in everybody if each.is_running()], f"seed {SEED}"
    assert list(temporary.iterdir()) == []
    assert len(sink.spans) > len(users) * RUNS
    for span in sink.spans:
        assert not CANARY.search(str(span)), f"seed {SEED}: {span}"


async def _each_run_has_one_ending(users: list[Impatient]) -> None:
    stories = await asyncio.gather(*(each.story() for each in users))
    kinds: list[str] = []
    for user, story in zip(users, stories, strict=True):
        assert story.keys() == user.runs.keys(), f"seed {SEED}: {user.name}"
        for run, events in story.items():
            found = endings(events)
            assert found == events[-1:], f"seed {SEED}: {run} of {user.name}: {events}"
            _check_ending(user, found[0])
            kinds.append(found[0]["type"])
    assert len(kinds) == USERS * RUNS + 5
    # It was worth the while: there were both, and cancels all along the way of a run.
    assert min(kinds.count("agent_completed"), kinds.count("agent_cancelled")) > USERS / 5
    lengths = {len(events) for story in stories for events in story.values()}
    assert len(lengths) > 2, lengths


def _check_ending(user: Impatient, ending: Frame) -> None:
    if ending["type"] == "agent_cancelled":
        assert ending["data"]["reason"] == "USER", f"seed {SEED}: {ending}"
        return
    assert ending["type"] == "agent_completed", f"seed {SEED}: {ending}"
    output = ending["data"]["output"]
    assert (output["canary"], output["found"]) == (user.canary, []), f"seed {SEED}: {output}"
    assert set(output["past"]) <= {user.canary}, f"seed {SEED}: {output}"


def _nothing_in_sockets(users: list[Impatient]) -> None:
    seen: set[str] = set()
    for user in users:
        found = _canaries("".join(user.texts))
        assert found <= {user.canary}, f"seed {SEED}: {user.name}"
        seen |= found
    assert _many(seen)


def _nothing_in_folders(users: list[Impatient], folders: FolderWatch) -> None:
    shared = {str(path): found for path, found in folders.found.items() if len(found) > 1}
    assert shared == {}, f"seed {SEED}"
    seen = set().union(*folders.found.values())
    assert _many(seen), "the folders were looked at too late"
    folders.found.clear()
    folders.look()
    assert not any(folders.found.values()), f"seed {SEED}: {folders.found}"


def _nothing_in_log(chain: Chain, users: list[Impatient]) -> None:
    """A line that carries a canary at all is what an agent printed, named by its own run."""
    runs = {user.canary: user.runs.keys() for user in users}
    seen: set[str] = set()
    for line in chain.log().splitlines():
        found = _canaries(line)
        seen |= found
        assert len(found) <= 1, f"seed {SEED}: {line}"
        for canary in found:
            assert set(_RUN.findall(line)) & runs[canary], f"seed {SEED}: {line}"
            assert set(_RUN.findall(line)) <= runs[canary], f"seed {SEED}: {line}"
    assert _many(seen)


async def _nothing_in_store(chain: Chain, users: list[Impatient]) -> None:
    """Every message of NATS is about the user whose key its subject has."""
    owners = {Principal("default", user.name).ukey: user.canary for user in users}
    seen: set[str] = set()
    async for subject, payload in stored(chain):
        own = {owners[token] for token in subject.split(".") if token in owners}
        found = _canaries(payload.decode("utf-8", "replace"))
        assert found <= own, f"seed {SEED}: {subject}: {payload!r}"
        assert not CANARY.search(subject), f"seed {SEED}: {subject}"
        seen |= found
    assert seen == set(owners.values())


def _many(canaries: set[str]) -> bool:
    """Enough for a leak to be seen; not all, since whoever cancelled early enough has left nothing."""
    return len(canaries) > USERS / 4


def _canaries(text: str) -> set[str]:
    return set(CANARY.findall(text))
