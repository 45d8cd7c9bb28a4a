"""Transaction tokens of runs. The engine is the only signer, and signs what a place says and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.plans import RUN_TOKENS, TENANT_TOKENS, USER_TOKENS
from factorychain._core.txn_tokens import TxnSigner
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.limits import LimitsOf


class RunTokens:
    """Mints the contexts of runs, each with its token."""

    def __init__(
        self, signer: TxnSigner, limits: Mapping[str, int], limits_of_user: LimitsOf
    ) -> None:
        """`limits` are the same for all runs."""
        self._signer = signer
        self._limits = limits
        self._of_user = limits_of_user

    def run(self, principal: Principal, entry: ActiveRun) -> UserExecutionContext:
        """For agents: they may speak for the run."""
        return self._issue(principal, entry, Scope.RUN)

    def lifecycle(self, principal: Principal, entry: ActiveRun) -> UserExecutionContext:
        """For the engine itself: it may end the run."""
        return self._issue(principal, entry, Scope.LIFECYCLE)

    def _issue(self, principal: Principal, entry: ActiveRun, scope: Scope) -> UserExecutionContext:
        return self._signer.issue(
            principal=principal,
            thread=entry.thread,
            run=entry.run,
            agent=entry.agent,
            attempt=entry.attempt,
            scope=scope,
            base=entry.base,
            base_seq=entry.base_seq,
            base_epoch=entry.base_epoch,
            deadline_s=entry.deadline_s,
            limits={**self._limits, **self._of(principal, entry)},
        )

    def _of(self, principal: Principal, entry: ActiveRun) -> dict[str, int]:
        limits = self._of_user(principal, entry.plan)
        tokens = {
            RUN_TOKENS: limits.run_tokens,
            USER_TOKENS: limits.user_tokens,
            TENANT_TOKENS: limits.tenant_tokens,
        }
        said = {name: value for name, value in tokens.items() if value is not None}
        return {"active_runs": limits.active_runs, "attempts": entry.attempts, **said}
