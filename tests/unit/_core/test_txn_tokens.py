from __future__ import annotations

from typing import Any

import jwt
import orjson
import pytest

from factorychain._core import jws
from factorychain._core.execution_context import Scope
from factorychain._core.ids import Principal, run_id_for
from factorychain._core.keys import TxnKey
from factorychain._core.txn_tokens import GRACE_S, TYP, TxnSigner, TxnVerifier
from factorychain._core.user_tokens import mint_user_token
from factorychain.errors import TokenExpired, TokenInvalid
from tests.token_samples import (
    ADA,
    NOW_S,
    TRUST_DOMAIN,
    Clock,
    Keys,
    hmac_signed,
    issued,
    key_set,
    public_pem,
    unsigned,
)

KEY = TxnKey.generate()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(clock: Clock) -> TxnSigner:
    return TxnSigner(KEY, TRUST_DOMAIN, clock)


@pytest.fixture
def verifier(clock: Clock) -> TxnVerifier:
    return TxnVerifier(Keys(key_set(KEY)), TRUST_DOMAIN, clock)


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = orjson.loads(jws.b64url_decode(token.split(".")[1]))
    return claims


def signed(claims: dict[str, Any], key: TxnKey = KEY, typ: str = TYP) -> str:
    return jws.sign(claims, key.private, typ=typ, kid=key.kid)


def test_a_verifier_reads_what_the_signer_issued(signer: TxnSigner, verifier: TxnVerifier) -> None:
    context = issued(signer)
    assert verifier.verify(context.token) == context


def test_a_token_has_the_claims_of_the_draft(signer: TxnSigner) -> None:
    token = issued(signer, request_context={"ip": "192.0.2.1"}).token
    header = orjson.loads(jws.b64url_decode(token.split(".")[0]))
    assert header == {"typ": "txntoken+jwt", "alg": "EdDSA", "kid": KEY.kid}
    assert claims_of(token) == {
        "iat": int(NOW_S),
        "exp": int(NOW_S + 300 + GRACE_S),
        "aud": TRUST_DOMAIN,
        "txn": run_id_for(ADA, "req-1"),
        "sub": "ada",
        "scope": "run",
        "req_wl": "engine",
        "tctx": {
            "tenant": "acme",
            "thread": "t1",
            "agent": "researcher",
            "attempt": 1,
            "limits": {"output_max_bytes": 262_144},
            "base": 41,
            "base_seq": 17,
            "base_epoch": 1_763_800_000_000,
            "deadline": NOW_S + 300,
        },
        "rctx": {"ip": "192.0.2.1"},
    }


def test_another_implementation_verifies_it_too(signer: TxnSigner) -> None:
    token = issued(signer).token
    options: Any = {"verify_exp": False, "verify_iat": False}
    decoded = jwt.decode(
        token,
        KEY.private.public_key(),
        algorithms=["EdDSA"],
        audience=TRUST_DOMAIN,
        options=options,
    )
    assert decoded["sub"] == "ada"


def test_a_token_of_one_scope_is_refused_where_the_other_is_needed(
    signer: TxnSigner, verifier: TxnVerifier
) -> None:
    token = issued(signer, scope=Scope.LIFECYCLE).token
    assert verifier.verify(token, {"run", "lifecycle"}).scope is Scope.LIFECYCLE
    with pytest.raises(TokenInvalid, match="scope lifecycle"):
        verifier.verify(token)  # although it is known by now


def test_a_token_expires_also_when_it_is_remembered(
    signer: TxnSigner, verifier: TxnVerifier, clock: Clock
) -> None:
    context = issued(signer)
    verifier.verify(context.token)
    clock.now_s = context.expires_at_s
    with pytest.raises(TokenExpired):
        verifier.verify(context.token)


def test_a_later_deadline_or_another_scope_needs_another_token(
    signer: TxnSigner, verifier: TxnVerifier
) -> None:
    context = issued(signer)
    longer = issued(signer, deadline_s=NOW_S + 900)
    settling = issued(signer, scope=Scope.LIFECYCLE)
    assert verifier.verify(longer.token).expires_at_s == NOW_S + 900 + GRACE_S
    assert verifier.verify(settling.token, {"lifecycle"}).run == context.run
    assert len({context.token, longer.token, settling.token}) == 3


def test_a_run_that_is_over_its_deadline_can_still_be_settled(
    signer: TxnSigner, verifier: TxnVerifier, clock: Clock
) -> None:
    clock.now_s = NOW_S + 10_000
    settling = issued(signer, scope=Scope.LIFECYCLE)
    assert verifier.verify(settling.token, {"lifecycle"}).expires_at_s == clock.now_s + GRACE_S


def test_a_key_that_is_withdrawn_takes_its_tokens_with_it(signer: TxnSigner, clock: Clock) -> None:
    keys = Keys(key_set(KEY, TxnKey.generate()))
    verifier = TxnVerifier(keys, TRUST_DOMAIN, clock)
    token = issued(signer).token
    verifier.verify(token)
    keys.key_set = key_set(TxnKey.generate())
    with pytest.raises(TokenInvalid, match="no key of this chain"):
        verifier.verify(token)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_change_anywhere_makes_it_invalid(
    signer: TxnSigner, verifier: TxnVerifier, position: int
) -> None:
    parts = issued(signer).token.split(".")
    part = parts[position]
    # Not the last character: that of a signature has bits that mean nothing.
    parts[position] = part[:10] + ("A" if part[10] != "A" else "B") + part[11:]
    with pytest.raises(TokenInvalid):
        verifier.verify(".".join(parts))


def test_claims_of_one_user_under_the_signature_of_another_are_refused(
    signer: TxnSigner, verifier: TxnVerifier
) -> None:
    header, _, signature = issued(signer).token.split(".")
    other = issued(signer, principal=Principal("acme", "bob")).token.split(".")[1]
    with pytest.raises(TokenInvalid, match="signature"):
        verifier.verify(f"{header}.{other}.{signature}")


def test_another_key_under_a_known_name_is_refused(
    signer: TxnSigner, verifier: TxnVerifier
) -> None:
    stranger = TxnKey.generate()
    token = jws.sign(claims_of(issued(signer).token), stranger.private, typ=TYP, kid=KEY.kid)
    with pytest.raises(TokenInvalid, match="signature"):
        verifier.verify(token)


def test_another_type_is_refused_although_the_key_is_right(
    signer: TxnSigner, verifier: TxnVerifier
) -> None:
    with pytest.raises(TokenInvalid, match="header"):
        verifier.verify(signed(claims_of(issued(signer).token), typ="JWT"))


def test_a_user_token_is_no_transaction_token(verifier: TxnVerifier) -> None:
    token = mint_user_token(b"s" * 32, ADA, ttl_s=60, audience=TRUST_DOMAIN, now_s=NOW_S)
    with pytest.raises(TokenInvalid):
        verifier.verify(token)


def test_no_algorithm_but_the_one_is_accepted(signer: TxnSigner, verifier: TxnVerifier) -> None:
    claims = claims_of(issued(signer).token)
    none = unsigned({"typ": TYP, "alg": "none", "kid": KEY.kid}, claims)
    padded = unsigned({"typ": TYP, "alg": "none", "kid": KEY.kid}, claims, "A" * 86)
    for key in (public_pem(KEY), KEY.private.public_key().public_bytes_raw()):
        hmac = hmac_signed({"typ": TYP, "alg": "HS256", "kid": KEY.kid}, claims, key)
        with pytest.raises(TokenInvalid):
            verifier.verify(hmac)
    for token in (none, padded):
        with pytest.raises(TokenInvalid):
            verifier.verify(token)


def test_a_header_that_brings_its_own_key_or_extension_is_refused(
    signer: TxnSigner, verifier: TxnVerifier
) -> None:
    token = issued(signer).token
    header = {"typ": TYP, "alg": "EdDSA", "kid": KEY.kid, "jwk": TxnKey.generate().public_jwk()}
    body = f"{jws.b64url(orjson.dumps(header))}.{token.split('.')[1]}"
    forged = f"{body}.{jws.b64url(KEY.private.sign(body.encode()))}"
    with pytest.raises(TokenInvalid, match="header"):
        verifier.verify(forged)


def change(claims: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    target = claims
    *parents, name = path.split(".")
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[name]
    else:
        target[name] = value
    return claims


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("aud", "another-chain"),
        ("aud", [TRUST_DOMAIN]),
        ("aud", ...),
        ("exp", ...),
        ("exp", "soon"),
        ("exp", True),
        ("iat", NOW_S + 60),
        ("sub", ...),
        ("sub", ""),
        ("sub", 7),
        ("sub", "a\nb"),
        ("sub", "x" * 257),
        ("txn", "run-1"),
        ("scope", "admin"),
        ("scope", ...),
        ("tctx", ...),
        ("tctx", []),
        ("tctx.tenant", ...),
        ("tctx.tenant", ""),
        ("tctx.thread", "*"),
        ("tctx.attempt", -1),
        ("tctx.attempt", True),
        ("tctx.base", "41"),
        ("tctx.base_epoch", 1.5),
        ("tctx.deadline", None),
        ("tctx.limits", ...),
        ("tctx.limits", {"output_max_bytes": "all"}),
    ],
)
def test_a_claim_that_is_missing_or_of_the_wrong_kind_is_refused(
    signer: TxnSigner, verifier: TxnVerifier, path: str, value: object
) -> None:
    claims = change(claims_of(issued(signer).token), path, value)
    with pytest.raises(TokenInvalid):
        verifier.verify(signed(claims))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "x" * 10_000,
        "\ud800",
        "é.é.é",
        "a.b." + "c" * 86,
        "bnVsbA.bnVsbA." + "c" * 86,
    ],
)
def test_what_is_no_token_is_refused_without_quoting_it(verifier: TxnVerifier, token: str) -> None:
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify(token)
    assert len(token) < 3 or token not in str(refused.value)
