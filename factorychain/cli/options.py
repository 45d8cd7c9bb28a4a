"""Options that several commands have, and what they find on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from factorychain._core.ids import Principal
from factorychain._core.plans_file import PlansUnusable, parse_plans, read_file
from factorychain._core.settings import (
    PREFIX,
    AgentsSettings,
    BridgeSettings,
    CommandSettings,
    EmitterSettings,
    EngineSettings,
    UserTokenSettings,
    all_settings,
    settings_problem,
)
from factorychain._core.user_tokens import mint_user_token
from factorychain.cli.output import err, fail
from factorychain.local.chain import external_identity_provider
from factorychain.local.datadir import DEFAULT, DataDir
from factorychain.local.state import ChainState

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="FACTORYCHAIN_DATA_DIR",
        metavar="DIR",
        help="Data directory of the chain: its keys and everything it stores.",
    ),
]
DATA_DEFAULT = DEFAULT
User = Annotated[str, typer.Option("--user", metavar="U", help="The user to act as.")]
SessionUser = Annotated[
    str,
    typer.Option(
        "--user",
        metavar="U",
        help="The user to act as. A token in FACTORYCHAIN_TOKEN is used as it is, whoever this is.",
    ),
]
Tenant = Annotated[str, typer.Option("--tenant", metavar="T", help="The user's tenant.")]

_TTL = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SESSION_TTL_S = 3600
_TTL_MAX_S = 3650 * 86_400


def running_chain(data: Path) -> tuple[DataDir, ChainState]:
    """The chain that runs on a data directory; ends the command with a hint if none does."""
    directory = DataDir(data)
    state = directory.running()
    if state is None and directory.is_locked():
        fail(f"the chain on {directory.path} is still starting, or stopping", "again in a moment")
    if state is None:
        fail(
            f"no chain is up on the data directory {directory.path}",
            "factorychain up   (in another terminal; or name its directory with --data DIR)",
        )
    return directory, state


def unknown_variables() -> list[str]:
    """Variables of the environment that look like the chain's and are none: misspelt, most likely."""
    known = {each.variable for each in all_settings()}
    return [
        f"{name}: no such variable; the chain ignores it"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]


def environment_problems() -> list[str]:
    """What is wrong with the values in the environment, each with its variable."""
    found: list[str] = []
    for settings in (EngineSettings, AgentsSettings, EmitterSettings, BridgeSettings):
        try:
            settings()
        except ValidationError as error:
            found += [each for each in settings_problem(error).splitlines() if each not in found]
    return found or _limits_problems()


def _limits_problems() -> list[str]:
    path = EngineSettings().limits_file
    if path is None:
        return []
    try:
        parse_plans(read_file(path))
    except PlansUnusable as error:
        return [f"FACTORYCHAIN_LIMITS_FILE: {path}: {error}"]
    return []


def check_environment() -> None:
    """Ends the command if some service would refuse its configuration; says what would be ignored."""
    for each in unknown_variables():
        err.print(f"warning: {each}", markup=False)
    problems = environment_problems()
    if problems:
        fail("\n".join(problems), "factorychain config   lists every variable")


def session_token(directory: DataDir, user: str, tenant: str) -> str:
    """The token that the environment gives, else one made for the user; ends the command without."""
    given = CommandSettings().token.get_secret_value()
    return given or user_token(directory, user, tenant, _SESSION_TTL_S)


def token_hint() -> str:
    """What to do about a token that the chain does not accept."""
    if CommandSettings().token.get_secret_value():
        return "another token in FACTORYCHAIN_TOKEN, or none: then one for --user is made"
    return "--data with the directory of the chain that is up"


def user_token(directory: DataDir, user: str, tenant: str, ttl_s: int) -> str:
    """A token that the directory's chain accepts; ends the command if it has no keys."""
    if not directory.has_keys():
        fail(
            f"{directory.path} holds no keys: no chain was ever started on it",
            "factorychain up   (or name the directory of your chain with --data DIR)",
        )
    if not user:
        fail("--user must not be empty", "--user alice")
    if external_identity_provider():
        fail(
            "the environment names an identity provider (FACTORYCHAIN_USER_…): it makes the tokens",
            "a token from your identity provider, in FACTORYCHAIN_TOKEN",
        )
    settings = UserTokenSettings()
    return mint_user_token(
        directory.user_secret,
        Principal(tenant, user),
        ttl_s=ttl_s,
        audience=settings.user_audience,
        issuer=settings.user_issuer,
        tenant_claim=settings.tenant_claim,
    )


def parse_ttl(text: str) -> int:
    """Seconds of `90s`, `15m`, `1h`, `7d`; ends the command on anything else."""
    match = _TTL.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        fail(f"--ttl {text!r} is no duration", "a number with s, m, h or d, such as 15m or 1h")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > _TTL_MAX_S:
        fail(f"--ttl {text} is longer than ten years", "a shorter one, such as 30d")
    return seconds
