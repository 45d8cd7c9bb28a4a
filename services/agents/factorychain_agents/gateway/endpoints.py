"""What runs may ask of servers of models: requests whose answer belongs to who asks.

Invariant: nothing that the vendor keeps for the operator's account (files, stored answers, jobs of
others) can be reached with a run's key; an endpoint that is not here is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from factorychain_agents.gateway.readers import (
    ChatReader,
    MessagesReader,
    Reader,
    ResponsesReader,
)
from factorychain_agents.gateway.refusals import Form
from factorychain_agents.gateway.upstreams import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of them."""

    path: str
    """Behind the version."""
    form: Form
    operation: str
    """In OpenTelemetry's words; empty: it asks no model, and is not counted."""
    reader: Callable[[], Reader]
    asks_usage: bool = False
    """Streams have their usage only if they are asked for it."""


MODELS: Final = "models"
_CHAT: Final = Endpoint("chat/completions", "chat", "chat", ChatReader, asks_usage=True)
_COMPLETIONS: Final = Endpoint(
    "completions", "chat", "text_completion", ChatReader, asks_usage=True
)
_EMBEDDINGS: Final = Endpoint("embeddings", "chat", "embeddings", ChatReader)
_RESPONSES: Final = Endpoint("responses", "responses", "chat", ResponsesReader)
_MESSAGES: Final = Endpoint("messages", "messages", "chat", MessagesReader)
_COUNTING: Final = Endpoint("messages/count_tokens", "messages", "", MessagesReader)

_ENDPOINTS: Final[Mapping[Protocol, Mapping[str, Endpoint]]] = {
    "openai": {each.path: each for each in (_CHAT, _COMPLETIONS, _EMBEDDINGS, _RESPONSES)},
    "anthropic": {each.path: each for each in (_MESSAGES, _COUNTING)},
}


def endpoint_of(protocol: Protocol, path: str) -> Endpoint | None:
    """The endpoint of a path, such as `chat/completions`; None if runs may not use it."""
    return _ENDPOINTS[protocol].get(path)


def form_of(protocol: Protocol, path: str) -> Form:
    """The form of refusals there."""
    found = endpoint_of(protocol, path)
    if found is not None:
        return found.form
    return "messages" if protocol == "anthropic" else "chat"
