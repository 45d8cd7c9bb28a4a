"""What a run's token says is what its place and the limits of its user say."""

from __future__ import annotations

import pytest

from factorychain._core.execution_context import Scope
from factorychain._core.ids import Principal
from factorychain._core.keys import TxnKey
from factorychain._core.plans import UserLimits
from factorychain._core.txn_tokens import TxnSigner, TxnVerifier
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.tokens.run_tokens import RunTokens
from tests.token_samples import ADA, NOW_S, TRUST_DOMAIN, Clock, Keys, key_set

ENTRY = ActiveRun(
    run="r" + "a" * 24,
    thread="t1",
    agent="researcher",
    request_hash="00" * 16,
    owner="me",
    admitted_at_s=NOW_S,
    deadline_s=NOW_S + 300,
    base=41,
    base_seq=17,
    base_epoch=1,
    attempts=3,
    plan="pro",
)


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        (UserLimits(4, 16, 300.0), {}),
        (
            UserLimits(4, 16, 300.0, run_tokens=1_000, user_tokens=20_000, tenant_tokens=300_000),
            {"run_tokens": 1_000, "user_tokens": 20_000, "tenant_tokens": 300_000},
        ),
        (UserLimits(4, 16, 300.0, user_tokens=0), {"user_tokens": 0}),
    ],
)
def test_agents_are_told_what_a_user_is_granted_and_nothing_of_what_is_not_said(
    granted: UserLimits, said: dict[str, int]
) -> None:
    key, clock = TxnKey.generate(), Clock()
    asked: list[tuple[Principal, str]] = []

    def limits_of(principal: Principal, plan: str) -> UserLimits:
        asked.append((principal, plan))
        return granted

    tokens = RunTokens(TxnSigner(key, TRUST_DOMAIN, clock=clock), {"idle_s": 60}, limits_of)
    token = tokens.run(ADA, ENTRY).token
    read = TxnVerifier(Keys(key_set(key)), TRUST_DOMAIN, clock=clock).verify(token, {Scope.RUN})
    assert dict(read.limits) == {"idle_s": 60, "active_runs": 4, "attempts": 3, **said}
    assert asked == [(ADA, "pro")]
