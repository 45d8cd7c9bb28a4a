"""Runs as the gateway knows them: by a key of their own.

Invariant: a key is made for one run and attempt, cannot be guessed, and is worth nothing from the moment
at which that run's code is over, or told to stop: then its requests are given up as well.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.usage import Usage
from factorychain_agents.gateway.budgets import BudgetLimits, Granted, Used
from factorychain_agents.gateway.readers import Counted

_KEY_BYTES: Final = 32
_KEY_PREFIX: Final = "fc-run-"


class Account:
    """One attempt of one run."""

    def __init__(
        self,
        ctx: UserExecutionContext,
        trace: str,
        url: str,
        credentials: tuple[tuple[str, str], ...],
        at_once: int,
        ended: Callable[[Account], None],
        limits: BudgetLimits,
    ) -> None:
        """Args:
        ctx: the run, as its token says.
        trace: `traceparent` of its span.
        url: where the gateway is.
        services: names that `ctx.credential` knows in it.
        at_once: requests of it at the same time; more wait.
        ended: is told when its key is worth nothing any more.
        limits: its budgets, from its beginning to its end: a later token changes nothing of them.
        """
        self.ctx = ctx
        self.trace = trace
        self.url = url
        self.credentials = credentials
        self.key = _KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        self.places = asyncio.Semaphore(at_once)
        self.limits = limits
        self.used = Used()
        """Against its budget."""
        self._usage = Usage()
        self._ended = ended
        self._requests: set[asyncio.Task[object]] = set()

    @property
    def principal(self) -> Principal:
        return self.ctx.principal

    @property
    def left_s(self) -> float:
        """Until the run must have ended, as far as is known."""
        return self.ctx.deadline_s - time.time()

    def renew(self, ctx: UserExecutionContext) -> None:
        """The run lives longer than its token said."""
        self.ctx = ctx

    def count(self, counted: Counted) -> None:
        """A model has answered, or begun to."""
        self._usage.add(
            input_tokens=counted.input,
            output_tokens=counted.output,
            cached_input_tokens=counted.cached,
            reasoning_tokens=counted.reasoning,
            requests=1,
        )

    @contextmanager
    def request(self) -> Iterator[None]:
        """The request that this task serves is given up with the run."""
        task = asyncio.current_task()
        assert task is not None, "requests are served by tasks"
        self._requests.add(task)
        try:
            yield
        finally:
            self._requests.discard(task)

    def cancel(self) -> None:
        """The run is told to stop: nothing more is asked in its name."""
        self._ended(self)
        for each in self._requests:
            each.cancel()

    async def close(self) -> Usage:
        """The run's code is over; what it has used in all."""
        self.cancel()
        if self._requests:
            # What a request has used is counted when it has been given up.
            await asyncio.wait(set(self._requests))
        return self._usage


class Accounts:
    """Those of the runs that are alive."""

    def __init__(self, at_once: int, limits: BudgetLimits) -> None:
        """`limits` are those of runs whose token grants nothing else."""
        self._at_once = at_once
        self._limits = limits
        self._by_key: dict[str, Account] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def open(
        self,
        ctx: UserExecutionContext,
        trace: str,
        url: str,
        credentials: tuple[tuple[str, str], ...],
    ) -> Account:
        """For a run that begins."""
        limits = self._limits.granting(Granted.of(ctx.limits))
        account = Account(ctx, trace, url, credentials, self._at_once, self._forget, limits)
        self._by_key[account.key] = account
        return account

    def of(self, key: str) -> Account | None:
        """Whose key it is; None if it is nobody's, or not any more."""
        return self._by_key.get(key)

    def _forget(self, account: Account) -> None:
        self._by_key.pop(account.key, None)
