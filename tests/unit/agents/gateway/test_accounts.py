"""A key means one run, from its start until its code is over or told to stop."""

from __future__ import annotations

import asyncio
import time

import pytest

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.usage import Usage
from factorychain_agents.gateway.accounts import Account, Accounts
from factorychain_agents.gateway.budgets import Budget, BudgetLimits
from factorychain_agents.gateway.readers import Counted


def _context(run: str, **limits: int) -> UserExecutionContext:
    until_s = time.time() + 100
    return UserExecutionContext(
        Principal("acme", "ada"), "t", run, "a", 1, Scope.RUN, 0, 0, 0, until_s, until_s, limits, ""
    )


def _open(accounts: Accounts, run: str = "r") -> Account:
    return accounts.open(_context(run), "", "http://gateway", ())


async def test_a_key_finds_its_own_run_and_nothing_else() -> None:
    accounts = Accounts(1, BudgetLimits())
    first, second = _open(accounts, "r1"), _open(accounts, "r1")
    assert first.key != second.key
    assert accounts.of(first.key) is first
    assert accounts.of(second.key) is second
    for guess in ("", first.key[:-1], first.key + "x", first.key.upper()):
        assert accounts.of(guess) is None


async def test_a_cancel_voids_the_key_and_gives_up_what_is_under_way() -> None:
    accounts = Accounts(1, BudgetLimits())
    account, told = _open(accounts), asyncio.Event()

    async def request() -> None:
        with account.request():
            try:
                await asyncio.Event().wait()
            finally:
                account.count(Counted(3, 4, 1, 2))
                told.set()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    account.cancel()
    assert accounts.of(account.key) is None
    await told.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await account.close() == Usage(3, 4, 1, 2, 1)
    assert len(accounts) == 0


async def test_closing_waits_for_what_requests_have_used() -> None:
    accounts = Accounts(1, BudgetLimits())
    account = _open(accounts)

    async def request() -> None:
        with account.request():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                account.count(Counted(1, 1))

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    assert (await account.close()).requests == 1
    assert (await account.close()).requests == 1
    await asyncio.wait({task})


async def test_a_run_has_the_tokens_that_its_own_token_grants_to_its_end() -> None:
    configured = BudgetLimits(Budget(5, 100), Budget(0, 200), Budget(0, 300))
    accounts = Accounts(1, configured)
    assert _open(accounts).limits == configured
    granted = accounts.open(_context("r", run_tokens=7, user_tokens=0), "", "http://gateway", ())
    expected = BudgetLimits(Budget(5, 7), Budget(0, 0), Budget(0, 300))
    assert granted.limits == expected
    granted.renew(_context("r", run_tokens=1))
    assert granted.limits == expected
