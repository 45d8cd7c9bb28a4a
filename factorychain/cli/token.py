"""`factorychain token`: a token for a user of a chain on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from factorychain.cli import options
from factorychain.local.datadir import DataDir


def token(
    user: options.User,
    tenant: options.Tenant = "default",
    ttl: Annotated[str, typer.Option(help="How long it holds: 90s, 15m, 1h, 7d.")] = "1h",
    data: options.Data = options.DATA_DEFAULT,
) -> None:
    """Print a token that this data directory's chain accepts."""
    print(options.user_token(DataDir(data), user, tenant, options.parse_ttl(ttl)))
