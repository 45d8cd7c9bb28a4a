"""`factorychain respond`: answers what an agent asks, from elsewhere than the terminal of its run."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from factorychain.cli import options
from factorychain.cli.answering import parsed
from factorychain.cli.output import FAILED, err, fail
from factorychain.cli.run import Streaming
from factorychain.client import Client, Event
from factorychain.errors import FactoryChainError

_GIVE_UP_S = 30.0


def respond(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run that asks.")],
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")],
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="The answer, as JSON; other text is text.")
    ],
    user: options.SessionUser,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one event object a line of a run that goes on.")
    ] = False,
    tenant: options.Tenant = "default",
    data: options.Data = options.DATA_DEFAULT,
) -> None:
    """Answer what an agent asks. If another run goes on with it, stream that one."""
    directory, state = options.running_chain(data)
    token = options.session_token(directory, user, tenant)
    try:
        ending = asyncio.run(_respond(state.edge, token, user, run, request, value, as_json))
    except FactoryChainError as error:
        fail(f"{error.message} ({error.reason})")
    if ending is not None and ending.type != "agent_completed":
        raise typer.Exit(FAILED)


async def _respond(
    edge: str, token: str, user: str, run: str, request: str, value: str, as_json: bool
) -> Event | None:
    async with Client(edge, token, give_up_after_s=_GIVE_UP_S) as client:
        goes_on = await client.respond(run, request, parsed(value))
        if goes_on is None:
            err.print("answered")
            return None
        return await Streaming(client, user, as_json).stream(goes_on)
