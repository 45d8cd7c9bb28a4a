"""How much of models a run, a user and a tenant may use: requests, and tokens in and out.

Invariant: what was used is counted for all three at once, while it is used; nothing is passed on when
one of them has nothing left. Pure: a clock is passed in.

Windows of users and tenants are cut at multiples of their length since the epoch, so every replica has
the same; what is counted in them is this replica's alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from factorychain._core.ids import Principal
from factorychain._core.plans import RUN_TOKENS, TENANT_TOKENS, USER_TOKENS
from factorychain._core.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds; 0 means none."""

    requests: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Used:
    """What was used of one."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget that has nothing left."""

    whose: str
    """`run`, `user` or `tenant`."""
    what: str
    """`requests` or `tokens`."""
    limit: int
    renewed_s: float | None
    """Until it is renewed; None: never."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Tokens that a run's own token grants; None: what the agents layer is configured with."""

    run: int | None = None
    user: int | None = None
    tenant: int | None = None

    @classmethod
    def of(cls, limits: Mapping[str, int]) -> Granted:
        """What the limits in a transaction token say."""
        return cls(limits.get(RUN_TOKENS), limits.get(USER_TOKENS), limits.get(TENANT_TOKENS))


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The operator's."""

    run: Budget = Budget()
    user: Budget = Budget()
    tenant: Budget = Budget()
    window_s: float = 86_400.0

    @classmethod
    def of(cls, settings: GatewaySettings) -> BudgetLimits:
        return cls(
            Budget(settings.llm_run_max_requests, settings.llm_run_max_tokens),
            Budget(settings.llm_user_max_requests, settings.llm_user_max_tokens),
            Budget(settings.llm_tenant_max_requests, settings.llm_tenant_max_tokens),
            settings.llm_budget_window_s,
        )

    def granting(self, granted: Granted) -> BudgetLimits:
        """As these, but with the tokens that a run was granted."""
        return replace(
            self,
            run=_with(self.run, granted.run),
            user=_with(self.user, granted.user),
            tenant=_with(self.tenant, granted.tenant),
        )


class Budgets:
    """What users and tenants have used in the window that is now."""

    def __init__(self, limits: BudgetLimits, now_s: Callable[[], float]) -> None:
        """`now_s` gives Unix seconds."""
        self._limits = limits
        self._now_s = now_s
        self._window = 0
        self._users: dict[Principal, Used] = {}
        self._tenants: dict[str, Used] = {}

    def exhausted(
        self, principal: Principal, run: Used, limits: BudgetLimits | None = None
    ) -> Exhausted | None:
        """What has nothing left for one more request of a run; None if all have."""
        return self._first(principal, run, _REQUESTS, limits) or self.overspent(
            principal, run, limits
        )

    def overspent(
        self, principal: Principal, run: Used, limits: BudgetLimits | None = None
    ) -> Exhausted | None:
        """Whose tokens are used up; None if nobody's are."""
        return self._first(principal, run, _TOKENS, limits)

    def request(self, principal: Principal, run: Used) -> None:
        """One more request."""
        for each in (run, *self._of(principal)):
            each.requests += 1

    def spend(self, principal: Principal, run: Used, tokens: int) -> None:
        """Tokens were used; fewer than was thought, if it is negative."""
        for each in (run, *self._of(principal)):
            # A correction may meet a new window.
            each.tokens = max(0, each.tokens + tokens)

    def _first(
        self, principal: Principal, run: Used, what: str, limits: BudgetLimits | None
    ) -> Exhausted | None:
        user, tenant = self._of(principal)
        limits = limits or self._limits
        for whose, budget, used in (
            ("run", limits.run, run),
            ("user", limits.user, user),
            ("tenant", limits.tenant, tenant),
        ):
            limit: int = getattr(budget, what)
            if limit and getattr(used, what) >= limit:
                return Exhausted(whose, what, limit, None if whose == "run" else self._left_s())
        return None

    def _of(self, principal: Principal) -> tuple[Used, Used]:
        window = math.floor(self._now_s() / self._limits.window_s)
        if window != self._window:
            self._window = window
            self._users.clear()
            self._tenants.clear()
        user = self._users.get(principal)
        if user is None:
            user = self._users[principal] = Used()
        tenant = self._tenants.get(principal.tenant)
        if tenant is None:
            tenant = self._tenants[principal.tenant] = Used()
        return user, tenant

    def _left_s(self) -> float:
        return (self._window + 1) * self._limits.window_s - self._now_s()


def _with(budget: Budget, tokens: int | None) -> Budget:
    return budget if tokens is None else replace(budget, tokens=tokens)


_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
