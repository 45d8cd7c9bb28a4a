"""An agent's class for an agent of Pydantic AI, with what it needs read from it."""

from __future__ import annotations

from types import NoneType
from typing import TypeVar, Unpack

from pydantic_ai import UsageLimits
from pydantic_ai.agent import AbstractAgent

from factorychain.adapters.adapted import Options, class_for
from factorychain.adapters.pydantic_ai.pydantic_agent import MEMORY_BYTES, PydanticAgent
from factorychain.agent import Agent

Deps = TypeVar("Deps")
Output = TypeVar("Output")


def agent(
    found: AbstractAgent[Deps, Output],
    /,
    *,
    name: str,
    description: str = "",
    usage_limits: UsageLimits | None = None,
    remembered_bytes: int = MEMORY_BYTES,
    **options: Unpack[Options],
) -> type[Agent]:
    """An agent's class for an agent of Pydantic AI, which stays as it is.

    An agent with a `deps_type` gets its dependencies by this type: from the `providers` of the module
    that it is served from, or, if the type is `factorychain.RunContext`, its run.

    Args:
        found: the agent.
        name: what users start.
        description: what lists say of it; without one, its own.
        usage_limits: of one run; without them Pydantic AI's own, of 50 requests.
        remembered_bytes: how much of a thread's messages is kept from run to run.
        options: what its runs may do; see `factorychain.Agent`.

    Raises:
        TypeError: it is no agent of Pydantic AI, or there is no such option.
    """
    if not isinstance(found, AbstractAgent):
        raise TypeError(f"a {type(found).__name__} is no agent of Pydantic AI")
    own: dict[str, object] = {
        "usage_limits": usage_limits,
        "remembered_bytes": remembered_bytes,
    }
    deps_type: object = found.deps_type
    if deps_type not in (object, NoneType):
        own["__init__"] = _init_with(deps_type)
    told = description or (found.description if isinstance(found.description, str) else "")
    return class_for(PydanticAgent, found, name=name, description=told, options=options, own=own)


def _init_with(deps_type: object) -> object:
    """A constructor that asks for the dependencies by their type, as any agent's does."""

    def init(self: PydanticAgent, deps: object) -> None:
        self._deps = deps

    init.__annotations__ = {"deps": deps_type, "return": None}
    return init
