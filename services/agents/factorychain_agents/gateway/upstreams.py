"""The servers of models that the operator lets runs reach, and which models of them.

Invariant: a run names a server by the name that the operator gave it, and nothing of where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from yarl import URL

from factorychain._core.settings import PREFIX, GatewaySettings, Misconfigured
from factorychain_agents.gateway.secret import Secret, secret_file, secret_text
from factorychain_agents.gateway.tables import Fields, Table, base_url, read_tables

Protocol: TypeAlias = Literal["openai", "anthropic"]

DEFAULT: Final = "default"
"""Name of the one that is configured by variables."""
_VENDORS: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
}
_FILE: Final = f"{PREFIX}LLM_UPSTREAMS_FILE"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One server of models."""

    name: str
    protocol: Protocol
    base: URL
    """What the vendor's own client would be given as its base URL."""
    secret: Secret
    """Empty for a server that asks for none."""
    models: tuple[str, ...] = ()
    """Patterns; empty: all."""
    stream_usage: bool = True
    """It takes `stream_options`."""

    def allows(self, model: str) -> bool:
        """Whether runs may use a model."""
        return not self.models or any(fnmatchcase(model, each) for each in self.models)

    def headers(self) -> dict[str, str]:
        """The operator's credential."""
        if not self.secret:
            return {}
        if self.protocol == "anthropic":
            return {"x-api-key": self.secret.reveal()}
        return {"Authorization": f"Bearer {self.secret.reveal()}"}

    def url(self, endpoint: str) -> URL:
        """Of an endpoint, such as `chat/completions`."""
        version = "/v1" if self.protocol == "anthropic" else ""
        return _url(f"{self.base}{version}/{endpoint}")


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


class Upstreams:
    """All of them."""

    def __init__(self, found: Sequence[Upstream]) -> None:
        self._found = {each.name: each for each in found}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._found.values())

    def named(self, name: str) -> Upstream | None:
        """That of a name."""
        return self._found.get(name)

    def first(self, protocol: Protocol) -> Upstream | None:
        """Where the variables of a vendor's client lead to: the first that speaks its protocol."""
        return next((each for each in self if each.protocol == protocol), None)


def upstreams_of(settings: GatewaySettings) -> Upstreams:
    """What the operator has configured; none is no error.

    Raises:
        Misconfigured: a file cannot be read or says something else.
    """
    found = [] if (default := _default(settings)) is None else [default]
    path = settings.llm_upstreams_file
    tables = read_tables(path, _FILE) if path is not None else {}
    found += [_upstream(name, table, f"{_FILE}: {path}: {name}") for name, table in tables.items()]
    return Upstreams(found)


def _default(settings: GatewaySettings) -> Upstream | None:
    secret = _key(settings)
    if not settings.llm_base_url and not secret:
        return None
    protocol = settings.llm_protocol
    return Upstream(
        DEFAULT,
        protocol,
        base_url(settings.llm_base_url or _VENDORS[protocol], f"{PREFIX}LLM_BASE_URL"),
        secret,
        settings.llm_models,
        settings.llm_stream_usage,
    )


def _key(settings: GatewaySettings) -> Secret:
    if settings.llm_api_key_file is not None:
        return secret_file(settings.llm_api_key_file, f"{PREFIX}LLM_API_KEY_FILE")
    text = settings.llm_api_key.get_secret_value().strip()
    return secret_text(text, f"{PREFIX}LLM_API_KEY") if text else Secret("")


def _upstream(name: str, table: Table, where: str) -> Upstream:
    if name == DEFAULT:
        raise Misconfigured(f"{where}: this name is that of {PREFIX}LLM_BASE_URL; choose another")
    fields = Fields(table, where)
    protocol = fields.text("protocol", "openai")
    if protocol not in ("openai", "anthropic"):
        raise Misconfigured(f"{where}: protocol is {protocol!r}; use 'openai' or 'anthropic'")
    found = Upstream(
        name,
        "anthropic" if protocol == "anthropic" else "openai",
        fields.url("base_url", _VENDORS[protocol]),
        fields.secret("api_key"),
        fields.texts("models"),
        fields.flag("stream_usage", otherwise=True),
    )
    fields.finish()
    return found
