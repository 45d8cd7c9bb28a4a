"""The operator's file of plans (TOML): every problem is told with the place in it and how to mend it.

Invariant: a file is taken as a whole or not at all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from factorychain._core.plans import PLAN_MAX_CHARS, Plans, TenantTerms, Terms, UserTerms

_Table: TypeAlias = Mapping[str, object]

FILE_MAX_BYTES: Final = 4 * 1024 * 1024
_MOST_TOKENS: Final = 10**12
_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    "active_runs": (1, 1000),
    "queued_runs": (0, 1000),
    "run_tokens": (0, _MOST_TOKENS),
    "user_tokens": (0, _MOST_TOKENS),
    "tenant_tokens": (0, _MOST_TOKENS),
}
_LIFETIME_S: Final = (1, 86_400)
_LIMITS: Final = (*_WHOLE, "lifetime_s")


class PlansUnusable(Exception):
    """The file says something that cannot be meant."""


def read_file(path: Path) -> bytes:
    """The file's content, for `parse_plans`.

    Raises:
        PlansUnusable: it is not there, or too large.
    """
    try:
        with path.open("rb") as file:
            document = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise PlansUnusable(f"cannot be read: {error.strerror}") from error
    if len(document) > FILE_MAX_BYTES:
        raise PlansUnusable(f"has more than {FILE_MAX_BYTES} bytes")
    return document


def parse_plans(document: bytes) -> Plans:
    """What a file says.

    Raises:
        PlansUnusable: it cannot be used.
    """
    try:
        found = tomllib.loads(document.decode("utf-8"))
    except ValueError as error:
        raise PlansUnusable(f"is no TOML: {error}") from error
    _only(found, ("default", "plans", "tenants"), "the file")
    plans = {
        _plan_name(name): _terms(_table(each, f"plans.{name}"), f"plans.{name}")
        for name, each in _table(found.get("plans", {}), "plans").items()
    }
    tenants = {
        name: _tenant(_table(each, f"tenants.{name}"), f"tenants.{name}", plans)
        for name, each in _table(found.get("tenants", {}), "tenants").items()
    }
    default = _terms(_table(found.get("default", {}), "default"), "default")
    return Plans(default, plans, tenants)


def _tenant(table: _Table, where: str, plans: Mapping[str, Terms]) -> TenantTerms:
    users = {
        name: _user(_table(each, f"{where}.users.{name}"), f"{where}.users.{name}", plans)
        for name, each in _table(table.get("users", {}), f"{where}.users").items()
    }
    terms = _terms(table, where, beside=("plan", "users"))
    return TenantTerms(_plan(table, where, plans), terms, users)


def _user(table: _Table, where: str, plans: Mapping[str, Terms]) -> UserTerms:
    if "tenant_tokens" in table:
        raise PlansUnusable(
            f"{where}.tenant_tokens: is of all users of a tenant; write it in the tenant's table"
        )
    return UserTerms(_plan(table, where, plans), _terms(table, where, beside=("plan",)))


def _terms(table: _Table, where: str, beside: tuple[str, ...] = ()) -> Terms:
    _only(table, (*_LIMITS, *beside), where)
    whole: dict[str, int] = {
        name: _whole(table[name], f"{where}.{name}", *bounds)
        for name, bounds in _WHOLE.items()
        if name in table
    }
    if "lifetime_s" not in table:
        return Terms(**whole)
    return Terms(**whole, lifetime_s=_seconds(table["lifetime_s"], f"{where}.lifetime_s"))


def _plan(table: _Table, where: str, plans: Mapping[str, Terms]) -> str:
    found = table.get("plan", "")
    if not isinstance(found, str):
        raise PlansUnusable(f"{where}.plan: must be the name of a plan, in quotes")
    if found and found not in plans:
        there = ", ".join(plans) or "none"
        raise PlansUnusable(f"{where}.plan: no plan is called {found!r}; there are: {there}")
    return found


def _plan_name(name: str) -> str:
    if not 0 < len(name) <= PLAN_MAX_CHARS or not name.isprintable():
        raise PlansUnusable(
            f"plans.{name}: a plan's name has 1 to {PLAN_MAX_CHARS} printable characters"
        )
    return name


def _whole(found: object, where: str, least: int, most: int) -> int:
    if type(found) is not int or not least <= found <= most:
        raise PlansUnusable(
            f"{where}: {found!r} must be a whole number from {least} to {most}{_hint(least)}"
        )
    return found


def _hint(least: int) -> str:
    return "" if least == 0 else "; to keep somebody out, give them no token"


def _seconds(found: object, where: str) -> float:
    least, most = _LIFETIME_S
    if isinstance(found, bool) or not isinstance(found, int | float) or not least <= found <= most:
        raise PlansUnusable(
            f"{where}: {found!r} must be a number of seconds from {least} to {most}"
        )
    return float(found)


def _table(found: object, where: str) -> _Table:
    if not isinstance(found, dict):
        raise PlansUnusable(f"{where}: must be a table; begin it with a line [{where}]")
    return found


def _only(table: _Table, known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise PlansUnusable(
            f"{where}: {', '.join(unknown)} means nothing here; known are {', '.join(known)}"
        )
