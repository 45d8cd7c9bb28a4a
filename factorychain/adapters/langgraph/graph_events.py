"""A graph's stream as events of its run.

| part of the stream | event |
|---|---|
| messages: a model's tokens, its reasoning | `message_delta`, `thinking_delta` |
| tools, and answers of tools in the conversation | `tool_executing`, `tool_progress`, `tool_completed` |
| custom: what nodes write | `custom`, named `langgraph` |
| tasks: a node begins | `agent_thinking`, for nodes that are steps of the work |
| values of the graph itself | none: the last is what the run's output is made of |

Invariant: what a subgraph says carries its nodes' names as `path`; whatever a part holds, it cannot fail the
run by its form.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

import orjson
from langchain_core.messages import BaseMessage, ToolMessage
from langgraph.types import Interrupt as GraphInterrupt
from langgraph.types import StreamMode

from factorychain._instance.active import ActiveRun
from factorychain._instance.values import dumps_anything
from factorychain.adapters.langgraph.messages import Messages
from factorychain.adapters.langgraph.observing import Observer
from factorychain.adapters.langgraph.tool_calls import ToolCalls
from factorychain.context import RunContext
from factorychain.errors import EventRejected

log = logging.getLogger(__name__)

# `tools` is what `astream_events(version="v3")` goes by as well; the type of modes does not name it.
MODES: Final = cast("list[StreamMode]", ["messages", "tools", "custom", "tasks", "values"])
CUSTOM: Final = "langgraph"
THINKING: Final = "thinking"
"""In a node's metadata: what users read when it begins; empty: nothing."""
_LOOP: Final = frozenset(
    [
        "agent",
        "assistant",
        "call_llm",
        "call_model",
        "call_tools",
        "chatbot",
        "generate",
        "llm",
        "model",
        "tool_node",
        "tools",
    ]
)
"""Nodes of the usual loop of a model and its tools, which says by itself what it does."""


Part: TypeAlias = tuple[tuple[str, ...], str, object]
"""One part of a stream: the graph's namespace, empty for the outermost; the mode; what it carries."""
_INTERRUPT: Final = "__interrupt__"


class GraphEvents:
    """The events of one run's graph."""

    def __init__(self, ctx: RunContext, run: ActiveRun, observer: Observer, steps: int) -> None:
        """`steps` is how many nodes the graph has: of a graph with one, its beginning says nothing."""
        self.state: object = None
        """The graph's output so far."""
        self.interrupts: dict[str, GraphInterrupt[object]] = {}
        """What the graph waits for, by id."""
        self._ctx = ctx
        self._run = run
        self._tells_steps = steps > 1
        self._messages = Messages(ctx)
        self._calls = ToolCalls(run, self._messages, observer)
        self._last_step: dict[tuple[str, ...], str] = {}

    async def take(self, part: Part) -> None:
        """Say what a part of the stream says."""
        ns, kind, data = part
        if kind == "values":
            self._keep(ns, data)
            return
        with self._run.within(*(each.partition(":")[0] for each in ns)):
            await self._say(ns, kind, data)

    async def pause(self) -> None:
        """The graph waits for answers. What it asks with is said besides, where it is more than a text."""
        await self._calls.pause()
        for each in self.interrupts.values():
            if not isinstance(each.value, str):
                await self._custom({"interrupt": each.id, "value": each.value})

    async def _say(self, ns: tuple[str, ...], kind: str, data: object) -> None:
        if kind == "messages" and isinstance(data, tuple):
            await self._message(ns, data[0])
        elif kind == "tools" and isinstance(data, Mapping):
            await self._calls.take(ns, data)
        elif kind == "custom":
            await self._custom(data)
        elif kind == "tasks" and isinstance(data, Mapping) and "triggers" in data:
            await self._step(ns, data)

    async def _message(self, ns: tuple[str, ...], message: BaseMessage) -> None:
        if isinstance(message, ToolMessage):
            await self._calls.answer(ns, message)
        else:
            await self._messages.take(ns, message)

    async def _custom(self, data: object) -> None:
        try:
            await self._ctx.emit(CUSTOM, orjson.Fragment(dumps_anything(data)))
        except EventRejected as error:  # the node that wrote it cannot be told
            log.warning("what a node wrote to the stream is not shown: %s", error.message)

    async def _step(self, ns: tuple[str, ...], task: Mapping[str, object]) -> None:
        name = str(task["name"])
        metadata = task.get("metadata")
        own = metadata.get(THINKING) if isinstance(metadata, Mapping) else None
        text = own if isinstance(own, str) else self._sentence(name)
        # Once for tasks of one node that come in a row: a map over many things is one step.
        if text and self._last_step.get(ns) != name:
            await self._ctx.think(text)
        self._last_step[ns] = name

    def _sentence(self, name: str) -> str:
        quiet = name.lower() in _LOOP or name.startswith("__") or "." in name
        if quiet or not self._tells_steps:
            return ""
        words = name.replace("_", " ").replace("-", " ").strip()
        return words[:1].upper() + words[1:]

    def _keep(self, ns: tuple[str, ...], values: object) -> None:
        if ns:  # what a subgraph waits for is the graph's own question only if it reaches the graph
            return
        waiting = values.get(_INTERRUPT) if isinstance(values, Mapping) else None
        if waiting:
            found = cast("Sequence[GraphInterrupt[object]]", waiting)
            self.interrupts |= {each.id: each for each in found}
        else:
            self.state = values
