"""What users may use, by plan, tenant and user.

Invariant: every number is the operator's. A token may name one of the plans that the operator has
defined and nothing else: a name that is not defined changes nothing, and where the operator has given
a user or a tenant a plan, the token is not asked. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from factorychain._core.ids import Principal

PLAN_MAX_CHARS: Final = 64

# What a run's transaction token says of them.
RUN_TOKENS: Final = "run_tokens"
USER_TOKENS: Final = "user_tokens"
TENANT_TOKENS: Final = "tenant_tokens"


@dataclass(frozen=True, slots=True)
class UserLimits:
    """The limits of one user, complete."""

    active_runs: int
    """Runs at once."""
    queued_runs: int
    """Runs that wait."""
    lifetime_s: float
    """How long a run may take from admission; an agent may ask for less."""
    run_tokens: int | None = None
    """Tokens of models, in and out, of one run; 0: no limit; None: what the agents layer is
    configured with. So for the next two."""
    user_tokens: int | None = None
    """Those of one user in a window of budgets."""
    tenant_tokens: int | None = None
    """Those of all users of the tenant in a window of budgets."""
    plan: str = ""
    """The plan that they are of; empty: none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Some limits; what is None is left as it is."""

    active_runs: int | None = None
    queued_runs: int | None = None
    lifetime_s: float | None = None
    run_tokens: int | None = None
    user_tokens: int | None = None
    tenant_tokens: int | None = None

    def over(self, ground: UserLimits) -> UserLimits:
        """`ground` with what these say."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(ground, **{name: value for name, value in said.items() if value is not None})


NO_TERMS: Final = Terms()


@dataclass(frozen=True, slots=True)
class UserTerms:
    """What the operator says of one user."""

    plan: str = ""
    """Empty: the tenant's."""
    terms: Terms = NO_TERMS


@dataclass(frozen=True, slots=True)
class TenantTerms:
    """What the operator says of one tenant: the limits of each of its users."""

    plan: str = ""
    """Empty: the token may name one."""
    terms: Terms = NO_TERMS
    users: Mapping[str, UserTerms] = field(default_factory=dict)


_NO_TENANT: Final = TenantTerms()
_NO_USER: Final = UserTerms()


@dataclass(frozen=True, slots=True)
class Plans:
    """All that the operator has said."""

    default: Terms = NO_TERMS
    plans: Mapping[str, Terms] = field(default_factory=dict)
    tenants: Mapping[str, TenantTerms] = field(default_factory=dict)

    def of(self, principal: Principal, claimed: str, ground: UserLimits) -> UserLimits:
        """The limits of a user whose token names the plan `claimed` (empty: none).

        For each limit the first that says something: the user, the tenant, the plan, the default,
        `ground`.
        """
        tenant = self.tenants.get(principal.tenant, _NO_TENANT)
        user = tenant.users.get(principal.user, _NO_USER)
        plan = user.plan or tenant.plan or claimed
        if plan not in self.plans:
            plan = ""
        limits = replace(ground, plan=plan)
        for terms in (self.default, self.plans.get(plan, NO_TERMS), tenant.terms, user.terms):
            limits = terms.over(limits)
        return limits


def claimed_plan(claims: Mapping[str, object], name: str) -> str:
    """The plan that a verified token names in its claim `name`; empty if it names none."""
    found = claims.get(name) if name else ""
    if not isinstance(found, str) or len(found) > PLAN_MAX_CHARS or not found.isprintable():
        return ""
    return found
