"""What a run, a user and a tenant may use is counted for all three at once."""

from __future__ import annotations

from factorychain._core.ids import Principal
from factorychain_agents.gateway.budgets import Budget, BudgetLimits, Budgets, Granted, Used

ADA, BOB, EVE = Principal("acme", "ada"), Principal("acme", "bob"), Principal("other", "eve")


class Clock:
    def __init__(self) -> None:
        self.now_s = 250.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_is_exhausted_without_limits() -> None:
    budgets, run = Budgets(BudgetLimits(), Clock()), Used()
    for _ in range(1000):
        budgets.request(ADA, run)
    budgets.spend(ADA, run, 10**9)
    assert budgets.exhausted(ADA, run) is None


def test_requests_are_counted_where_they_are_limited() -> None:
    limits = BudgetLimits(
        run=Budget(requests=2), user=Budget(requests=3), tenant=Budget(requests=4)
    )
    budgets = Budgets(limits, Clock())
    first, second = Used(), Used()
    budgets.request(ADA, first)
    budgets.request(ADA, first)
    spent = budgets.exhausted(ADA, first)
    assert spent is not None
    assert (spent.whose, spent.what, spent.limit, spent.renewed_s) == ("run", "requests", 2, None)
    assert budgets.exhausted(ADA, second) is None
    budgets.request(ADA, second)
    spent = budgets.exhausted(ADA, Used())
    assert spent is not None
    assert spent.whose == "user"
    assert budgets.exhausted(BOB, Used()) is None
    budgets.request(BOB, Used())
    spent = budgets.exhausted(BOB, Used())
    assert spent is not None
    assert spent.whose == "tenant"
    assert budgets.exhausted(EVE, Used()) is None


def test_requests_do_not_stop_a_stream_that_is_under_way_and_tokens_do() -> None:
    limits = BudgetLimits(run=Budget(requests=1, tokens=10))
    budgets, run = Budgets(limits, Clock()), Used()
    budgets.request(ADA, run)
    assert budgets.overspent(ADA, run) is None
    budgets.spend(ADA, run, 9)
    assert budgets.overspent(ADA, run) is None
    budgets.spend(ADA, run, 1)
    spent = budgets.overspent(ADA, run)
    assert spent is not None
    assert spent.what == "tokens"


def test_windows_renew_budgets_of_users_and_say_when() -> None:
    clock = Clock()
    budgets = Budgets(BudgetLimits(user=Budget(tokens=10), window_s=100), clock)
    budgets.spend(ADA, Used(), 10)
    spent = budgets.exhausted(ADA, Used())
    assert spent is not None
    assert spent.renewed_s == 50
    clock.now_s = 300.0
    assert budgets.exhausted(ADA, Used()) is None


def test_a_correction_that_meets_a_new_window_makes_no_debt() -> None:
    clock = Clock()
    budgets, run = Budgets(BudgetLimits(user=Budget(tokens=10), window_s=100), clock), Used()
    budgets.spend(ADA, run, 100)
    clock.now_s = 300.0
    budgets.spend(ADA, run, -90)
    assert run.tokens == 10
    budgets.spend(ADA, run, 9)
    assert budgets.exhausted(ADA, run) is None
    budgets.spend(ADA, run, 1)
    assert budgets.exhausted(ADA, run) is not None


def test_what_a_run_is_granted_takes_the_place_of_what_is_configured() -> None:
    configured = BudgetLimits(run=Budget(tokens=10), user=Budget(tokens=20))
    budgets, run = Budgets(configured, Clock()), Used()
    granted = configured.granting(Granted.of({"run_tokens": 50, "user_tokens": 40, "idle_s": 1}))
    budgets.spend(ADA, run, 30)
    assert budgets.exhausted(ADA, run, granted) is None
    spent = budgets.exhausted(ADA, run)
    assert spent is not None
    assert (spent.whose, spent.limit) == ("run", 10)
    budgets.spend(ADA, run, 10)
    spent = budgets.overspent(ADA, run, granted)
    assert spent is not None
    assert (spent.whose, spent.limit) == ("user", 40)


def test_a_tenant_is_granted_tokens_that_take_the_place_of_its_configured_ones() -> None:
    configured = BudgetLimits(tenant=Budget(requests=9, tokens=20))
    budgets = Budgets(configured, Clock())
    granted = configured.granting(Granted.of({"tenant_tokens": 60}))
    assert granted == BudgetLimits(tenant=Budget(requests=9, tokens=60))
    budgets.spend(ADA, Used(), 59)
    assert budgets.exhausted(BOB, Used(), granted) is None
    budgets.spend(ADA, Used(), 1)
    spent = budgets.exhausted(BOB, Used(), granted)
    assert spent is not None
    assert (spent.whose, spent.what, spent.limit) == ("tenant", "tokens", 60)
    assert budgets.exhausted(EVE, Used(), granted) is None
