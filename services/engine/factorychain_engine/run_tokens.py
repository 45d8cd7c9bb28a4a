"""Transaction tokens of runs. The engine is the only signer, and signs what a place says and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.txn_tokens import TxnSigner
from factorychain_engine.admission import ActiveRun


class RunTokens:
    """Mints the contexts of runs, each with its token."""

    def __init__(self, signer: TxnSigner, limits: Mapping[str, int]) -> None:
        self._signer = signer
        self._limits = limits

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
            limits=self._limits,
        )
