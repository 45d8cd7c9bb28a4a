"""For each limit the first that says something: the user, the tenant, the plan, the default, the settings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.ids import Principal
from factorychain._core.plans import Plans, UserLimits, claimed_plan
from factorychain._core.plans_file import PlansUnusable, parse_plans

ADA, BOB = Principal("acme", "ada"), Principal("acme", "bob@example.com")
EVE = Principal("other", "eve")
GROUND = UserLimits(2, 16, 300.0)
FILE = b"""
[default]
queued_runs = 8

[plans.free]
active_runs = 1
run_tokens = 1_000
[plans.pro]
active_runs = 4
queued_runs = 32
lifetime_s = 900
user_tokens = 5_000

[tenants.acme]
plan = "pro"
active_runs = 3
tenant_tokens = 9_000
[tenants.acme.users."bob@example.com"]
plan = "free"
lifetime_s = 60.5
"""


def limits(principal: Principal, claimed: str = "", document: bytes = FILE) -> UserLimits:
    return parse_plans(document).of(principal, claimed, GROUND)


def test_without_a_file_the_settings_are_all_there_is() -> None:
    assert limits(EVE, "pro", b"") == GROUND


def test_a_token_chooses_among_the_plans_that_are_defined() -> None:
    assert limits(EVE) == UserLimits(2, 8, 300.0)
    assert limits(EVE, "free") == UserLimits(1, 8, 300.0, run_tokens=1_000, plan="free")
    assert limits(EVE, "pro") == UserLimits(4, 32, 900.0, user_tokens=5_000, plan="pro")
    assert limits(EVE, "unheard of") == limits(EVE)


def test_what_the_operator_says_of_a_tenant_or_user_goes_before_the_plan_and_the_token() -> None:
    of_tenant = UserLimits(3, 32, 900.0, user_tokens=5_000, tenant_tokens=9_000, plan="pro")
    assert limits(ADA) == limits(ADA, "free") == of_tenant
    of_user = UserLimits(3, 8, 60.5, run_tokens=1_000, tenant_tokens=9_000, plan="free")
    assert limits(BOB) == limits(BOB, "pro") == of_user


@given(st.text(max_size=70) | st.integers() | st.lists(st.text(max_size=3)) | st.none())
def test_whatever_a_token_claims_the_limits_are_some_that_the_operator_wrote(claim: Any) -> None:
    claimed = claimed_plan({"plan": claim}, "plan")
    assert limits(EVE, claimed) in [limits(EVE, each) for each in ("", "free", "pro")]
    assert limits(ADA, claimed) == limits(ADA)


def test_a_claim_that_is_no_short_text_names_no_plan() -> None:
    assert claimed_plan({"tier": "pro"}, "tier") == "pro"
    for claim in (["pro"], {"plan": "pro"}, 1, True, "x" * 65, "pro\n"):
        assert claimed_plan({"plan": claim}, "plan") == ""
    assert claimed_plan({"": "pro"}, "") == ""
    assert claimed_plan({}, "plan") == ""


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"[plans.pro]\nactive_runs = 0", "plans.pro.active_runs: 0 must be a whole number from 1"),
        (b"[plans.pro]\nactive_runs = 2.5", "plans.pro.active_runs: 2.5 must be a whole number"),
        (b"[plans.pro]\nactive_runs = true", "plans.pro.active_runs: True must be a whole number"),
        (b"[plans.pro]\nactive_runs = 1001", "from 1 to 1000"),
        (b"[default]\nqueued_runs = -1", "default.queued_runs: -1 must be"),
        (b"[default]\nlifetime_s = 86401", "default.lifetime_s: 86401 must be a number of seconds"),
        (b"[default]\nrun_tokens = '5'", "default.run_tokens: '5' must be a whole number"),
        (b"[plans.pro]\nactive = 2", "plans.pro: active means nothing here; known are active_runs"),
        (b"plan = 'pro'", "the file: plan means nothing here; known are default, plans, tenants"),
        (b"plans = 3", "plans: must be a table; begin it with a line [plans]"),
        (b"[plans]\npro = 3", "plans.pro: must be a table"),
        (b"[plans.'']", "a plan's name has 1 to 64 printable characters"),
        (
            b"[plans.free]\n[tenants.acme]\nplan = 'pro'",
            "tenants.acme.plan: no plan is called 'pro'",
        ),
        (b"[tenants.acme]\nplan = 3", "tenants.acme.plan: must be the name of a plan, in quotes"),
        (b"[tenants.acme.users.ada]\nplan = 'x'", "tenants.acme.users.ada.plan: no plan is called"),
        (b"[tenants.acme.users.ada]\ntenant_tokens = 1", "write it in the tenant's table"),
        (b"[tenants.acme]\nusers = 3", "tenants.acme.users: must be a table"),
        (b"[plans.pro", "is no TOML"),
        (b"\xff", "is no TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(document: bytes, said: str) -> None:
    with pytest.raises(PlansUnusable) as refused:
        parse_plans(document)
    assert said in str(refused.value)


def test_an_empty_file_says_nothing() -> None:
    assert parse_plans(b"# nothing yet\n") == Plans()
