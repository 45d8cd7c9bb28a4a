"""Other services that runs may use with a secret that the operator maps: per user, per tenant, or for all.

Invariant: the secret of a user is chosen by the verified principal of the run alone, and never leaves the
gateway but to the service that it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from factorychain._core.ids import Principal
from factorychain._core.settings import PREFIX, GatewaySettings, Misconfigured
from factorychain_agents.gateway.secret import Secret
from factorychain_agents.gateway.tables import Fields, Table, read_tables, secrets_in

_FILE: Final = f"{PREFIX}CREDENTIALS_FILE"
_MARK: Final = "{secret}"
_BEARER: Final = {"Authorization": f"Bearer {_MARK}"}


@dataclass(frozen=True, slots=True)
class MappedService:
    """One service, and whose secret is which."""

    name: str
    base: URL
    headers: Mapping[str, str]
    """By name, with `{secret}` in their values."""
    secret: Secret
    """For who has no other; may be empty."""
    tenants: Mapping[str, Secret] = field(default_factory=dict)
    users: Mapping[tuple[str, str], Secret] = field(default_factory=dict)
    """By tenant and user."""

    def secret_of(self, principal: Principal) -> Secret:
        """A principal's; empty if there is none."""
        own = self.users.get((principal.tenant, principal.user))
        return own or self.tenants.get(principal.tenant) or self.secret

    def headers_with(self, secret: Secret) -> dict[str, str]:
        """What a request carries."""
        text = secret.reveal()
        return {name: value.replace(_MARK, text) for name, value in self.headers.items()}


class MappedServices:
    """All of them."""

    def __init__(self, found: Mapping[str, MappedService]) -> None:
        self._found = dict(found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def of(self, principal: Principal) -> tuple[str, ...]:
        """Names of those that a principal has a secret for."""
        return tuple(name for name, each in self._found.items() if each.secret_of(principal))

    def named(self, name: str) -> MappedService | None:
        """That of a name."""
        return self._found.get(name)


def services_of(settings: GatewaySettings) -> MappedServices:
    """What the operator has configured; none is no error.

    Raises:
        Misconfigured: the file cannot be read or says something else.
    """
    path = settings.credentials_file
    tables = read_tables(path, _FILE) if path is not None else {}
    where = f"{_FILE}: {path}"
    return MappedServices(
        {name: _service(name, each, f"{where}: {name}") for name, each in tables.items()}
    )


def _service(name: str, table: Table, where: str) -> MappedService:
    fields = Fields(table, where)
    headers = dict(fields.table("headers")) or _BEARER
    texts = {header: value for header, value in headers.items() if isinstance(value, str)}
    if texts.keys() != headers.keys() or not any(_MARK in each for each in texts.values()):
        raise Misconfigured(
            f"{where}: headers must be texts, one with {_MARK} in it, such as"
            f' {{ Authorization = "Bearer {_MARK}" }}'
        )
    found = MappedService(
        name,
        fields.url("base_url"),
        texts,
        fields.secret("secret"),
        secrets_in(fields.table("tenants"), f"{where}: tenants"),
        _users(fields.table("users"), f"{where}: users"),
    )
    fields.finish()
    return found


def _users(table: Table, where: str) -> dict[tuple[str, str], Secret]:
    found: dict[tuple[str, str], Secret] = {}
    for tenant, users in table.items():
        if not isinstance(users, dict):
            raise Misconfigured(f"{where}: expected users.TENANT.USER, for one tenant `default`")
        own = secrets_in(users, f"{where}.{tenant}")
        found |= {(tenant, user): secret for user, secret in own.items()}
    return found
