"""What an agent sees of its run and says in it.

Invariant: there is one `RunContext` per run and attempt; identity and input in it are read-only and
come from the verified token and the start of the run, and no credential can be reached from it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import orjson

from factorychain._instance import events
from factorychain._instance.active import ActiveRun, AgentContext
from factorychain._instance.asking import ANSWER_WITHIN_S, ask
from factorychain._instance.calls import execute
from factorychain._instance.past import past_run
from factorychain._instance.threads import wait_from_thread
from factorychain._instance.tool_set import ToolSet, bound_tools
from factorychain._instance.tool_source import ToolSources
from factorychain._instance.values import NotJson, dumps
from factorychain.agent import Agent
from factorychain.credential import Credential
from factorychain.errors import CredentialNotFound, SubAgentRefused
from factorychain.history import PastRun
from factorychain.input import Input, Json, parse_input
from factorychain.interrupt import Request, RequestKind
from factorychain.message import MessageStream, ThinkingStream
from factorychain.state import ThreadState
from factorychain.tools import as_tool
from factorychain.usage import Usage

P = ParamSpec("P")
R = TypeVar("R")


class RunContext(AgentContext):
    """One run, for the agent's code in it. Whatever emits is awaited, and returns when there is room."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._input = parse_input(run.spec.input_json)
        metadata = orjson.loads(run.spec.metadata_json or "{}")
        self._metadata: Mapping[str, Json] = MappingProxyType(metadata)
        answers = run.spec.resume_json
        self._resume: Mapping[str, Json] | None = (
            MappingProxyType(orjson.loads(answers)) if answers else None
        )
        self._agent: object = None
        self._tools: ToolSet | None = None
        self._sources = ToolSources(run)

    # --- who and what ---

    @property
    def tenant(self) -> str:
        return self._run.spec.tenant

    @property
    def user(self) -> str:
        return self._run.spec.user

    @property
    def thread(self) -> str:
        """Id of the conversation, unique for its user."""
        return self._run.spec.thread

    @property
    def run_id(self) -> str:
        return self._run.spec.run

    @property
    def attempt(self) -> int:
        """1, unless the run was started again after its first replica was lost."""
        return self._run.spec.attempt

    @property
    def input(self) -> Input:
        return self._input

    @property
    def context(self) -> tuple[tuple[str, str], ...]:
        """What the client passed along: (description, value)."""
        return self._run.spec.context

    @property
    def metadata(self) -> Mapping[str, Json]:
        return self._metadata

    @property
    def deadline(self) -> datetime | None:
        """When the run must have ended, in UTC; later after every answer that was waited for. None outside
        of a chain.
        """
        at = self._run.spec.deadline_s
        waited_s = self._run.waiting.waited_s(time.monotonic())
        return datetime.fromtimestamp(at + waited_s, UTC) if at else None

    @property
    def usage(self) -> Usage:
        """What the run consumed so far; `ctx.usage.add(input_tokens=…)` counts more."""
        return self._run.usage

    def credential(self, name: str) -> Credential:
        """A service that the operator lets this run use with a secret, or a server of models by its name.

        Raises:
            CredentialNotFound: the operator has mapped none of this name for this user.
        """
        spec = self._run.spec
        paths = dict(spec.credentials)
        if name not in paths:
            raise CredentialNotFound(name, paths)
        return Credential(name, spec.gateway_url + paths[name], spec.gateway_key)

    # --- what the user sees ---

    async def think(self, text: str) -> None:
        """Tell the user what the agent is about to do (`agent_thinking`)."""
        run = self._run
        for piece in run.pieces(text):
            await run.emit(events.AGENT_THINKING, events.thinking(run.trace, piece))

    async def say(self, text: str) -> MessageStream:
        """Say something at once: a message of its own, normally one `message_delta`."""
        message = MessageStream(self._run)
        await message.write(text)
        return message

    def message(self) -> MessageStream:
        """A message to be written piece by piece: `async with ctx.message() as m: await m.write(…)`."""
        return MessageStream(self._run)

    def thinking(self) -> ThinkingStream:
        """A model's reasoning, piece by piece: `async with ctx.thinking() as t: await t.write(…)`."""
        return ThinkingStream(self._run)

    async def emit(self, name: str, data: object = None) -> None:
        """An event of the author's own (`custom`); `data` is anything that has a JSON form.

        Raises:
            TypeError: the data has no JSON form.
            EventRejected: it is larger than an event may be.
        """
        event = events.custom(self._run.trace, name, _json(data, f"emit({name!r})"))
        await self._run.emit(events.CUSTOM, event)

    async def progress(self, data: object) -> None:
        """How far the tool call is in which this is called (`tool_progress`).

        Raises:
            RuntimeError: called outside of a tool, or by something that has outlived its tool call.
        """
        call = self._run.call
        if call not in self._run.open_calls:
            over = "its tool call is over; " if call else ""
            raise RuntimeError(f"{over}ctx.progress belongs inside a tool; elsewhere use ctx.emit")
        event = events.tool_progress(self._run.trace, call, _json(data, "progress"))
        await self._run.emit(events.TOOL_PROGRESS, event)

    # --- tools ---

    @overload
    async def call(
        self, tool: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(
        self,
        tool: Callable[Concatenate[RunContext, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def call(
        self, tool: Callable[Concatenate[RunContext, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(self, tool: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def call(self, tool: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        """Call a tool, or a plain function as a tool; synchronous ones run in a thread."""
        return await execute(self._run, as_tool(tool), args, kwargs)

    @property
    def tools(self) -> ToolSet:
        """The agent's tools by name: their schemas, and calls with a model's arguments."""
        if self._tools is None:
            self._tools = ToolSet(self._run, bound_tools(self._agent), self._sources)
        return self._tools

    # --- the conversation ---

    async def history(self, limit: int = 50) -> list[PastRun]:
        """The earlier runs of this conversation, the oldest first; at most the `limit` latest ones."""
        found = await self._run.host.history(limit)
        return [past_run(each) for each in found]

    def wait(self, awaitable: Awaitable[R]) -> R:
        """From a synchronous `run` or tool: `ctx.wait(ctx.think("…"))`.

        Raises:
            RuntimeError: called from asynchronous code, which can `await`.
        """
        return wait_from_thread(self._run.loop, awaitable)

    @property
    def state(self) -> ThreadState:
        """What is kept between the runs of this conversation: `await ctx.state.get()`, `.set(…)`,
        `.update(function)`.
        """
        return ThreadState(self._run)

    # --- asking the user ---

    async def ask(
        self,
        prompt: str,
        schema: Mapping[str, Json] | None = None,
        timeout_s: float = ANSWER_WITHIN_S,
        *,
        kind: RequestKind = "question",
        tool: str = "",
        arguments: Mapping[str, Json] | None = None,
    ) -> Json:
        """Ask the user, and wait for the answer. The lifetime of the run stands still meanwhile.

        Args:
            prompt: what the user reads.
            schema: JSON Schema of the answer; one that does not fit is refused, and the question stays
                open. Without one the answer may be anything.
            timeout_s: how long to wait.
            kind: `question`, `approval` (the answer is true or false), or `tool`: the client is to execute
                something, whose result is the answer.
            tool: the tool that is to be approved, or executed by the client.
            arguments: the arguments of that call.

        Raises:
            InputTimeout: nobody has answered in time.
            InvalidField: the schema cannot be used.
            EventRejected: the question is too large, or more are open than a run may have.
            ValueError: what is asked cannot be.
        """
        request = self._run.new_id("q")
        asked = Request(
            prompt=prompt,
            kind=kind,
            schema=schema,
            request=request,
            tool=tool,
            arguments=arguments,
        )
        return await ask(self._run, asked.plain(), timeout_s)

    async def approve(self, prompt: str, timeout_s: float = ANSWER_WITHIN_S) -> bool:
        """Ask the user to approve something; what is raised is as with `ask`."""
        return await self.ask(prompt, timeout_s=timeout_s, kind="approval") is True

    @property
    def resume(self) -> Mapping[str, Json] | None:
        """What was answered to the requests of an `Interrupt`, by request; None: the run goes on for none."""
        return self._resume

    # --- other agents ---

    async def run(self, agent: str | type[Agent], input: object = "", *, name: str = "") -> Any:
        """Run another agent inside this run, to its end: in the same process, with an instance and
        dependencies of its own. Users see it as a call of a tool that has its name; what it says has that
        name in its `path`. It shares this run's limits, deadline and usage.

        Args:
            agent: the name or the class of an agent that is there.
            input: text, an `Input`, the JSON of one, or what the agent's own model describes.
            name: what it is called in `path`, such as `left` and `right` of two at once.

        Returns:
            What its `run` returns.

        Raises:
            AgentError: what it raised, as everything that it raises.
            AgentNotFound: there is no such agent.
            AgentDependencyMissing: it misses something.
            SubAgentRefused: it may do more than this run may, or they are too deep inside each other.
            InvalidField: the input is not what it takes.
        """
        if self._run.sub_agents is None:
            raise SubAgentRefused(str(agent), "whoever hosts it knows no other agents")
        return await self._run.sub_agents.run(self._run, agent, input, name)


def tool_sources(context: RunContext) -> ToolSources:
    """What is opened for tools that come from elsewhere; whoever runs the agent closes it."""
    return context._sources


def bind_agent(context: RunContext, agent: object) -> None:
    """Tell the context which instance runs in it: whose tools `ctx.tools` has."""
    context._agent = agent
    context._tools = None


def _json(value: object, where: str) -> str:
    try:
        return dumps(value)
    except NotJson as error:
        raise TypeError(f"ctx.{where}: the data has no JSON form: {error}") from error
