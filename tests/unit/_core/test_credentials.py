"""Which credential a call takes, and what a server must have to check it."""

from __future__ import annotations

import pytest

from factorychain._core.contracts import Credential, all_contracts
from factorychain._core.credentials import (
    Authenticator,
    bearer,
    current_run,
    current_user,
    current_user_token,
    remaining_s,
)
from factorychain.errors import TokenInvalid

BY_METHOD = {(each.layer, each.method): each for each in all_contracts()}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer\tabc"])
def test_anything_but_a_bearer_token_is_refused(header: str) -> None:
    with pytest.raises(TokenInvalid, match="carries no user token"):
        bearer([("authorization", header)])


def test_the_scheme_is_read_in_any_case_and_from_bytes() -> None:
    assert bearer([("x", "y"), ("authorization", "bearer  abc ")]) == "abc"
    assert bearer([("authorization", b"BEARER abc")]) == "abc"


@pytest.mark.parametrize("method", ["StartRun", "GetHistory"])
def test_a_server_that_could_not_check_a_credential_is_refused(method: str) -> None:
    contract = BY_METHOD["engine", method]
    with pytest.raises(ValueError, match="nothing to verify it with"):
        Authenticator().require(contract)


def test_a_link_checks_each_run_itself_and_needs_no_verifier_here() -> None:
    Authenticator().require(BY_METHOD["emitter", "Emit"])


def test_calls_for_peers_and_for_anybody_need_no_verifier() -> None:
    for contract in all_contracts():
        if contract.credential in (Credential.PEER, Credential.NONE):
            Authenticator().require(contract)


def test_outside_of_a_call_there_is_no_user_no_run_and_no_deadline() -> None:
    for ask in (current_user, current_run, current_user_token):
        with pytest.raises(RuntimeError, match="here"):
            ask()
    assert remaining_s() is None
