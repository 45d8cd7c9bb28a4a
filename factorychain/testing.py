"""Run an agent without a chain, as in

```python
result = factorychain.testing.run(Researcher, "How do I open a file?", overrides={Library: FakeLibrary()})
assert result.output == "…"
assert [event.type for event in result.events][-1] == "agent_completed"
```
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import orjson
from pydantic import BaseModel

from factorychain._core.event_json import event_object
from factorychain._instance.active import ActiveRun
from factorychain._instance.definition import define
from factorychain._instance.ending import ending_event, started_event
from factorychain._instance.known_agents import KnownAgents, agents_in
from factorychain._instance.memory_values import MemoryValues
from factorychain._instance.pending import checked
from factorychain._instance.recorder import Recorder
from factorychain._instance.runner import run_agent
from factorychain._instance.scripted_user import Answers
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec, SpanRecord
from factorychain._instance.sub_agents import SubAgents, input_json_of
from factorychain._instance.threads import on_event_loop
from factorychain._instance.values import dumps
from factorychain.adapters import adapt
from factorychain.agent import Agent
from factorychain.errors import AgentDependencyMissing
from factorychain.history import PastRun
from factorychain.input import Input, Json, parse_input
from factorychain.types.v1.event_pb2 import Event
from factorychain.usage import Usage

__all__ = ["Conversation", "RunEvent", "RunResult", "run", "run_async"]

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event as clients get it."""

    seq: int
    type: str
    data: dict[str, Json]
    path: tuple[str, ...] = ()
    """The sub-agents on the way to the one that said it; empty for the agent itself."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run said and came to."""

    events: list[RunEvent]
    """From `agent_started` to the ending."""
    output: Json
    """What the agent returned, as clients get it; None unless it completed."""
    usage: Usage
    spans: list[SpanRecord] = field(default_factory=list)
    """One for each tool call."""

    @property
    def ending(self) -> RunEvent:
        return self.events[-1]

    @property
    def pending(self) -> list[Json]:
        """What an `Interrupt` asks: empty unless the run ended with one."""
        found = self.ending.data.get("pending", [])
        return found if isinstance(found, list) else []

    @property
    def text(self) -> str:
        """Everything that was streamed as message text."""
        return "".join(str(each.data["text"]) for each in self.of_type("message_delta"))

    def of_type(self, name: str) -> list[RunEvent]:
        """The events of one type, in order."""
        return [each for each in self.events if each.type == name]


class Conversation:
    """What runs of one conversation leave for the next ones: `run(Agent, "…", conversation=mine)`."""

    def __init__(self, history: Sequence[PastRun] = (), state: Json = None) -> None:
        """`state` is what `ctx.state` has at first."""
        self.history = list(history)
        """The runs so far; each that is run in it is added."""
        self.kept = MemoryValues()
        if state is not None:
            self.kept.store("state", dumps(state).encode(), 0)

    @property
    def state(self) -> Json:
        """What `ctx.state` has now."""
        found, _ = self.kept.load("state")
        return None if found is None else orjson.loads(found)


def run(
    agent: type[Agent] | object,
    input: str | Input | Mapping[str, Json] | BaseModel = "",
    *,
    overrides: Mapping[type, object] | None = None,
    history: Sequence[PastRun] = (),
    conversation: Conversation | None = None,
    metadata: Mapping[str, Json] | None = None,
    answers: Answers = (),
    resume: Mapping[str, Json] | None = None,
    user: str = "user",
    tenant: str = "default",
    thread: str = "t1",
    timeout_s: float = 30.0,
    agents: Sequence[type[Agent]] = (),
) -> RunResult:
    """Run an agent and wait for its end; `run_async` does the same with `await`.

    Args:
        agent: the agent's class, made from its module's `providers`; or what an adapter serves, such
            as a compiled LangGraph graph.
        input: text, an `Input`, the JSON of one, what the agent's own model describes, or any other
            JSON, which becomes `data`.
        overrides: things to use instead of what the providers make, by type.
        history: earlier runs of the conversation.
        conversation: one that several runs are in, instead of `history`.
        metadata: what the start of the run carries.
        answers: what the user answers when the agent asks, one after the other, or a function of the data
            of `input_requested`. An exception is raised in place of an answer: `InputTimeout()`.
        resume: the answers to the requests of an `Interrupt`, by request: the run goes on for that one.
        user: who asks.
        tenant: whose user that is.
        thread: the conversation.
        timeout_s: after this the run is cancelled, and ends so.
        agents: others that it runs, beside those of its module.

    Raises:
        AgentDependencyMissing: something that the constructor needs cannot be made.
        InvalidField: the input is not what the agent takes.
    """
    call = run_async(
        agent,
        input,
        overrides=overrides,
        history=history,
        conversation=conversation,
        metadata=metadata,
        answers=answers,
        resume=resume,
        user=user,
        tenant=tenant,
        thread=thread,
        timeout_s=timeout_s,
        agents=agents,
    )
    if not on_event_loop():
        return asyncio.run(call)
    # Inside of a running loop (an asynchronous test): a loop of its own in a thread of its own.
    with ThreadPoolExecutor(1, thread_name_prefix="factorychain.testing") as executor:
        return executor.submit(asyncio.run, call).result()


async def run_async(
    agent: type[Agent] | object,
    input: str | Input | Mapping[str, Json] | BaseModel = "",
    *,
    overrides: Mapping[type, object] | None = None,
    history: Sequence[PastRun] = (),
    conversation: Conversation | None = None,
    metadata: Mapping[str, Json] | None = None,
    answers: Answers = (),
    resume: Mapping[str, Json] | None = None,
    user: str = "user",
    tenant: str = "default",
    thread: str = "t1",
    timeout_s: float = 30.0,
    agents: Sequence[type[Agent]] = (),
) -> RunResult:
    """As `run`."""
    cls = _class(agent)
    definition = define(cls)
    place = conversation or Conversation(history)
    spec = RunSpec(
        tenant=tenant,
        user=user,
        thread=thread,
        run=f"r{len(place.history):a>24}",
        agent=definition.name,
        attempt=1,
        input_json=input_json_of(input),
        metadata_json=dumps(dict(metadata or {})),
        deadline_s=time.time() + timeout_s,
        trace=_TRACE,
        resumes="" if resume is None else _last(place),
        resume_json="" if resume is None else dumps(dict(resume)),
    )
    definition.argument(spec.input_json)
    known = KnownAgents([*agents_in(cls.__module__), *agents, cls], overrides)
    try:
        main = await known.find(definition.name)
        if main.missing:
            raise AgentDependencyMissing(main.missing)
        host = Recorder(place.history, place.kept, answers)
        return await _recorded(spec, host, known, timeout_s, place)
    finally:
        await known.close()


def _last(place: Conversation) -> str:
    """The run that goes on."""
    return place.history[-1].run if place.history else f"r{'resumed':a>24}"


def _class(agent: object) -> type[Agent]:
    found = agent if isinstance(agent, type) else adapt(agent, "agent")
    if not isinstance(found, type) or not issubclass(found, Agent):
        raise TypeError(f"{agent!r} is no agent's class, and nothing that an adapter serves")
    return found


async def _recorded(
    spec: RunSpec,
    host: Recorder,
    known: KnownAgents,
    timeout_s: float,
    place: Conversation,
) -> RunResult:
    host.events.append(started_event(spec))
    sub_agents = SubAgents(known.find, confined_to=None)
    active = ActiveRun(spec, host, asyncio.get_running_loop(), sub_agents=sub_agents)
    main = await known.find(spec.agent)
    began = time.monotonic()
    task = asyncio.create_task(run_agent(active, main.definition, main.injection))
    await asyncio.wait([task], timeout=timeout_s)
    task.cancel()
    outcome = checked(await task)
    host.events.append(ending_event(spec, outcome, time.monotonic() - began))
    output: Json = (
        orjson.loads(outcome.output_json) if outcome.kind is OutcomeKind.COMPLETED else None
    )
    place.history.append(_past(spec, outcome, output))
    return RunResult(_read(host.events, spec.run), output, outcome.usage, host.spans)


def _past(spec: RunSpec, outcome: Outcome, output: Json) -> PastRun:
    return PastRun(
        spec.run,
        spec.agent,
        outcome.kind.value,
        parse_input(spec.input_json),
        output,
        outcome.reason,
    )


def _read(events: Sequence[bytes], run: str) -> list[RunEvent]:
    found = []
    for seq, each in enumerate(events, 1):
        shown = orjson.loads(orjson.dumps(event_object(Event.FromString(each), seq, run)))
        path = tuple(shown.get("path", ()))
        found.append(RunEvent(seq, shown["type"], shown["data"], path))
    return found
