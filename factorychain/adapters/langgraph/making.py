"""From a graph to an agent's class: what is read of it, and what its author chooses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Unpack, cast

from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel
from langgraph.store.memory import InMemoryStore

from factorychain._instance.active import current_run
from factorychain.adapters.adapted import Options, class_for
from factorychain.adapters.langgraph.graph_agent import Choices, GraphAgent
from factorychain.adapters.langgraph.shape import Graph, Shape, shape_of
from factorychain.context import RunContext
from factorychain.input import Json

log = logging.getLogger(__name__)


def agent(
    graph: object,
    /,
    *,
    name: str,
    description: str = "",
    memory: bool | None = None,
    input: Callable[[RunContext], object] | None = None,
    output: Callable[[object], Json] | None = None,
    recursion_limit: int | None = None,
    configurable: Mapping[str, object] | None = None,
    types: Iterable[type] = (),
    **options: Unpack[Options],
) -> type[GraphAgent]:
    """An agent's class for a compiled graph, which stays as it is.

    Args:
        graph: what `compile()`, `create_agent` or `@entrypoint` returns.
        name: what users start.
        description: what lists say of it.
        memory: whether a run goes on from where the thread's last one ended. By default one of a graph
            with messages does, or with an in-memory checkpointer of its own. A graph with a checkpointer
            that outlives processes keeps that, and this is nothing to it. As a sub-agent (`ctx.run`) a graph
            begins anew with each call, unless this is True.
        input: makes what the graph is started with; by default `{"messages": [the user's message]}`,
            or what the input's `data` or text fill of the graph's input schema.
        output: makes the run's output of the graph's last state; by default the last answer's text.
        recursion_limit: how many steps a run may take; LangGraph's own limit by default.
        configurable: more for `config["configurable"]`.
        types: what may be made again from stored checkpoints, besides plain data, messages and the types
            that the graph's schemas name.
        options: what its runs may do, as attributes of `Agent` say it.

    Raises:
        TypeError: it is no compiled graph.
    """
    if not isinstance(graph, Pregel):
        raise TypeError(
            f"a {type(graph).__name__} is no compiled graph: give what compile() returns"
        )
    shape = shape_of(graph)
    _warn_of_what_ends(graph, name)
    choices = Choices(
        shape=shape,
        remembers=_remembers(graph, shape) if memory is None else memory,
        remembers_inside=memory is True,
        types=_kept_types(graph, shape, types),
        input=input,
        output=output,
        recursion_limit=recursion_limit,
        configurable=dict(configurable or {}),
    )
    return class_for(
        GraphAgent,
        graph,
        name=name,
        description=description,
        options=options,
        own={"choices": choices},
    )


def run_context() -> RunContext:
    """The run that a node or a tool is in, for what LangGraph has no word for: `credential`, `progress`.

    Raises:
        RuntimeError: called outside of a run.
    """
    run = current_run()
    if run is None:
        raise RuntimeError("this is for the code of a graph's nodes and tools, in a run")
    return cast("RunContext", run.context)


def _remembers(graph: Graph, shape: Shape) -> bool:
    if graph.checkpointer is False:
        return False
    return shape.has_messages or isinstance(graph.checkpointer, InMemorySaver)


def _kept_types(graph: Graph, shape: Shape, more: Iterable[type]) -> frozenset[tuple[str, ...]]:
    """As LangGraph collects them for its strict mode, of subgraphs too."""
    named = build_serde_allowlist(schemas=list(shape.schemas), channels=dict(graph.channels))
    return frozenset(named | {(each.__module__, each.__qualname__) for each in more})


def _warn_of_what_ends(graph: Graph, name: str) -> None:
    if isinstance(graph.checkpointer, InMemorySaver):
        log.warning(
            "agent %s: an in-memory checkpointer would end with each run's process; "
            "its checkpoints are kept with the conversation instead",
            name,
        )
    if isinstance(graph.store, InMemoryStore):
        log.warning("agent %s: what it puts into its in-memory store ends with each run", name)
