"""`factorychain agents`: what can be started."""

from __future__ import annotations

import asyncio

from rich.table import Table

from factorychain.cli import options
from factorychain.cli.output import fail, out
from factorychain.client import Client, JsonObject
from factorychain.errors import FactoryChainError


def agents(
    user: options.SessionUser = "cli",
    tenant: options.Tenant = "default",
    data: options.Data = options.DATA_DEFAULT,
) -> None:
    """List the agents that a user can start, and what those that can't are missing."""
    directory, state = options.running_chain(data)
    token = options.session_token(directory, user, tenant)
    try:
        found = asyncio.run(_listed(state.edge, token))
    except FactoryChainError as error:
        fail(f"{error.message} ({error.reason})")
    table = Table(pad_edge=False)
    for column in ("agent", "can start", "what it does", "tools"):
        table.add_column(column, overflow="fold")
    for agent in found:
        table.add_row(
            f"[bold]{agent['name']}[/]" + (" (default)" if agent.get("is_default") else ""),
            "[green]yes[/]" if agent["available"] else f"[red]no: {_names(agent, 'missing')}[/]",
            str(agent.get("description", "")),
            _names(agent, "tools"),
        )
    out.print(table)


async def _listed(edge: str, token: str) -> list[JsonObject]:
    async with Client(edge, token, give_up_after_s=10.0) as client:
        return await client.agents()


def _names(agent: JsonObject, key: str) -> str:
    values = agent.get(key)
    items = values if isinstance(values, list) else []
    return ", ".join(str(each["name"]) if isinstance(each, dict) else str(each) for each in items)
