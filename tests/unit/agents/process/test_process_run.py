"""One run in a process, with a process that does as it is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factorychain._instance import events
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec, SpanRecord
from factorychain._process.asked import Asked, pack_asked
from factorychain._process.messages import number, pack_outcome, pack_span, unpack_spec
from factorychain._process.wire import BrokenFrame, FromInstance, ToInstance
from factorychain.errors import RunNotFound
from factorychain.usage import Usage
from factorychain_agents.process.child import Exit
from factorychain_agents.process.host_calls import HOST_CALLS
from factorychain_agents.process.instance_process import Owner
from factorychain_agents.process.machine import OutOfMemory
from factorychain_agents.process.process_run import ProcessRun, RunLimits
from tests.silent_host import SilentHost
from tests.waiting import until_true

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPEC = RunSpec("acme", "ada", "t", "r", "five", 1, "{}", trace=TRACE)
DONE = Outcome(OutcomeKind.COMPLETED, '"done"', usage=Usage(requests=2))
THOUGHT = number(events.AGENT_THINKING) + events.thinking(TRACE, "hm")
KILLED = Exit(None, signal.SIGKILL)


class Process:
    """Keeps what it is told."""

    pid = 1

    def __init__(self) -> None:
        self.told: list[tuple[ToInstance, bytes]] = []
        self.signals: list[str] = []
        self.owner: Owner | None = None

    def belong_to(self, owner: Owner) -> None:
        self.owner = owner

    def send(self, kind: ToInstance, payload: bytes = b"") -> None:
        self.told.append((kind, payload))

    async def flushed(self) -> None: ...

    def terminate(self) -> None:
        self.signals.append("TERM")

    def kill(self) -> None:
        self.signals.append("KILL")


class Host(SilentHost):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self.spans: list[SpanRecord] = []
        self.beats = 0

    async def emit(self, kind: int, event: bytes) -> None:
        self.events.append(event)

    def beat(self) -> None:
        self.beats += 1

    def span(self, record: SpanRecord) -> None:
        self.spans.append(record)

    async def history(self, limit: int) -> Sequence[bytes]:
        if limit == 13:
            raise RunNotFound
        return [b"one", b"two"][:limit]


class World:
    """A run and its process."""

    def __init__(self, silent_s: float = 60, grace_s: float = 60) -> None:
        self.process = Process()
        self.host = Host()
        self.shown: list[tuple[str, str, str]] = []
        limits = RunLimits(
            cpu_s=10, silent_s=silent_s, grace_s=grace_s, events_per_s=1e6, events_burst=1e6
        )
        self.run = ProcessRun(
            self.process, SPEC, self.host, limits, lambda *what: self.shown.append(what), MACHINE
        )
        self.run.begin()

    def says(self, kind: FromInstance, payload: bytes = b"") -> None:
        self.run.heard(kind, payload)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(5):
            return await self.run.wait()


MACHINE = OutOfMemory()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.run.ended(KILLED, "")
    await made.outcome()


async def test_the_process_gets_the_run(world: World) -> None:
    assert world.process.owner is world.run
    kind, payload = world.process.told[0]
    assert kind is ToInstance.START
    assert unpack_spec(payload) == SPEC


async def test_what_it_says_reaches_the_host_and_then_its_outcome_who_waits(world: World) -> None:
    world.says(FromInstance.CREATED)
    world.says(FromInstance.EVENT, THOUGHT)
    world.says(FromInstance.BEAT)
    world.says(FromInstance.OUTPUT, b"\x01printed\n")
    world.says(FromInstance.SPAN, pack_span(SpanRecord("s", TRACE, "b7ad6b7169203331", 1, 2)))
    world.says(FromInstance.OUTCOME, pack_outcome(DONE))
    assert await world.outcome() == DONE
    assert world.host.events == [THOUGHT[4:]]
    assert (world.host.beats, len(world.host.spans)) == (1, 1)
    assert world.shown == [("r", "stdout", "printed")]


async def test_a_history_is_answered_in_parts_and_a_failure_with_its_reason(world: World) -> None:
    for request, limit in ((7, 2), (8, 13)):
        world.says(
            FromInstance.REQUEST,
            pack_asked(request, Asked("history", {"limit": limit})),
        )
    await until_true(lambda: len(world.process.told) == 5)
    answers = world.process.told[1:]
    ends = {payload[:4]: payload[4:] for kind, payload in answers if kind is ToInstance.ANSWER_END}
    assert [payload for kind, payload in answers if kind is ToInstance.ANSWER_PART] == [
        number(7) + b"one",
        number(7) + b"two",
    ]
    assert ends[number(7)] == b""
    assert orjson.loads(ends[number(8)])["reason"] == "RUN_NOT_FOUND"


async def test_after_its_outcome_it_has_nothing_more_to_say(world: World) -> None:
    world.says(FromInstance.OUTCOME, pack_outcome(DONE))
    with pytest.raises(BrokenFrame, match="after its outcome"):
        world.says(FromInstance.EVENT, THOUGHT)
    assert await world.outcome() == DONE


async def test_a_cancel_is_told_once_in_both_ways(world: World) -> None:
    world.run.cancel()
    world.run.cancel()
    assert world.process.told[1:] == [(ToInstance.CANCEL, b"")]
    assert world.process.signals == ["TERM"]
    world.run.ended(Exit(None, signal.SIGTERM), "")
    assert (await world.outcome()).kind is OutcomeKind.CANCELLED


async def test_an_abandoned_one_is_killed_and_nothing_of_it_reaches_the_host(world: World) -> None:
    world.says(FromInstance.EVENT, THOUGHT)
    world.run.abandon()
    assert world.process.signals == ["KILL"]
    assert (await world.outcome()).kind is OutcomeKind.CANCELLED
    await asyncio.sleep(0)
    assert world.host.events == []


async def test_what_breaks_the_protocol_is_killed_and_has_crashed(world: World) -> None:
    world.run.broke("kind 255 is none of this direction's")
    assert world.process.signals == ["KILL"]
    world.run.ended(KILLED, "")
    assert (await world.outcome()).reason == "CRASHED"


async def test_what_it_said_before_its_death_is_heard_before_the_ending(world: World) -> None:
    world.says(FromInstance.EVENT, THOUGHT)
    world.run.ended(Exit(None, signal.SIGSEGV), "Fatal Python error")
    assert (await world.outcome()).reason == "CRASHED"
    assert world.host.events == [THOUGHT[4:]]
    assert world.shown == [("r", "stderr", "Fatal Python error")]


async def test_silence_ends_it_by_both_signals() -> None:
    world = World(silent_s=0.05, grace_s=0.05)
    await until_true(lambda: world.process.signals == ["TERM", "KILL"])
    world.run.ended(KILLED, "")
    assert (await world.outcome()).reason == "UNRESPONSIVE"


async def test_an_interrupted_loop_ends_for_its_silence_with_what_it_used() -> None:
    world = World(silent_s=0.05)
    await until_true(lambda: world.process.signals == ["TERM"])
    usage = Usage(requests=1)
    world.says(FromInstance.OUTCOME, pack_outcome(Outcome(OutcomeKind.CANCELLED, usage=usage)))
    outcome = await world.outcome()
    assert (outcome.reason, outcome.usage) == ("UNRESPONSIVE", usage)
    world.run.ended(Exit(0), "")


async def test_signs_of_life_keep_it() -> None:
    world = World(silent_s=1)
    for _ in range(6):
        await asyncio.sleep(0.2)
        world.says(FromInstance.BEAT)
    assert world.process.signals == []
    world.run.ended(KILLED, "")
    await world.outcome()


async def test_one_that_does_not_end_after_its_last_word_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("factorychain_agents.process.process_run._LAST_MOMENT_S", 0.01)
    world = World()
    world.says(FromInstance.OUTCOME, pack_outcome(DONE))
    await until_true(lambda: world.process.signals == ["KILL"])
    world.run.ended(KILLED, "")
    assert await world.outcome() == DONE


def said_of(fields: bytes) -> st.SearchStrategy[bytes]:
    """The fields as a payload, and as what any call is asked with."""
    asked = [pack_asked(1, Asked(call, orjson.loads(fields), b"x")) for call in HOST_CALLS]
    return st.sampled_from([number(1) + fields, *asked])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=300,
)
@given(
    kind=st.sampled_from(FromInstance),
    payload=st.one_of(
        st.binary(max_size=100),
        st.binary(max_size=60).map(lambda rest: THOUGHT[:4] + rest),
        st.dictionaries(
            st.sampled_from([*SpanRecord.__dataclass_fields__, "limit", "kind", "usage", "name"]),
            st.one_of(
                st.none(), st.integers(-(2**63), 2**63), st.text(max_size=5), st.lists(st.none())
            ),
        ).flatmap(lambda fields: said_of(orjson.dumps(fields))),
    ),
)
async def test_nothing_that_an_instance_writes_breaks_the_service(
    kind: FromInstance, payload: bytes
) -> None:
    world = World()
    try:
        world.says(kind, payload)
    except BrokenFrame:
        world.run.broke("as its process would")
    world.run.ended(KILLED, "")
    await world.outcome()
