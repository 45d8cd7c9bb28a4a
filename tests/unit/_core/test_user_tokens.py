from __future__ import annotations

from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from factorychain._core.ids import DEFAULT_TENANT, Principal
from factorychain._core.jwks import parse_jwks
from factorychain._core.keys import KeyUnusable, TxnKey
from factorychain._core.txn_tokens import TxnSigner
from factorychain._core.user_tokens import UserVerifier, mint_user_token
from factorychain.errors import TokenExpired, TokenInvalid
from tests.token_samples import ADA, NOW_S, Clock, Keys, hmac_signed, issued, key_set, unsigned

AUDIENCE = "factorychain-api"
SECRET = b"a shared secret of enough bytes, at least 32"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = TxnKey.generate()
PROVIDER = parse_jwks(
    orjson.dumps(
        {
            "keys": [
                {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "rsa"},
                {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "ec"},
                {**ED.public_jwk(), "kid": "ed"},
            ]
        }
    )
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(clock: Clock) -> UserVerifier:
    return UserVerifier(audience=AUDIENCE, secret=SECRET, jwks=Keys(PROVIDER), clock=clock)


def claims(**changes: Any) -> dict[str, Any]:
    good = {
        "sub": "ada",
        "tenant": "acme",
        "aud": AUDIENCE,
        "iat": int(NOW_S),
        "exp": int(NOW_S) + 300,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def provided(payload: dict[str, Any], *, key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode(payload, key, algorithm=alg, headers={"kid": "rsa", **header})


def shared(payload: dict[str, Any], **header: Any) -> str:
    return hmac_signed({"alg": "HS256", "typ": "JWT", **header}, payload, SECRET)


@pytest.mark.parametrize(
    ("alg", "kid", "key"),
    [
        ("RS256", "rsa", RSA),
        ("RS512", "rsa", RSA),
        ("PS256", "rsa", RSA),
        ("ES256", "ec", EC),
        ("EdDSA", "ed", ED.private),
    ],
)
async def test_a_token_of_the_provider_names_its_user(
    verifier: UserVerifier, alg: str, kid: str, key: Any
) -> None:
    user = await verifier.verify(provided(claims(), key=key, alg=alg, kid=kid))
    assert user.principal == ADA
    assert user.expires_at_s == NOW_S + 300
    assert user.actor is None


async def test_a_token_of_the_shared_secret_names_its_user(verifier: UserVerifier) -> None:
    token = mint_user_token(SECRET, ADA, ttl_s=60, audience=AUDIENCE, now_s=NOW_S)
    assert (await verifier.verify(token)).principal == ADA


async def test_without_a_tenant_claim_the_tenant_is_default(verifier: UserVerifier) -> None:
    user = await verifier.verify(shared(claims(tenant=...)))
    assert user.principal == Principal(DEFAULT_TENANT, "ada")


async def test_the_tenant_claim_may_have_any_name(clock: Clock) -> None:
    verifier = UserVerifier(
        audience=AUDIENCE, secret=SECRET, tenant_claim="https://idp.example/org", clock=clock
    )
    token = shared(claims(tenant="ignored", **{"https://idp.example/org": "acme"}))
    assert (await verifier.verify(token)).principal == ADA


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_the_types_of_user_tokens_are_accepted(verifier: UserVerifier, typ: str) -> None:
    assert (await verifier.verify(shared(claims(), typ=typ))).principal == ADA


async def test_one_of_several_audiences_is_enough(verifier: UserVerifier) -> None:
    assert (await verifier.verify(shared(claims(aud=["x", AUDIENCE])))).principal == ADA


@pytest.mark.parametrize("scope", [{"scope": "openid act_as"}, {"scp": ["act_as"]}])
async def test_a_backend_with_the_scope_acts_for_a_user(
    verifier: UserVerifier, scope: dict[str, Any]
) -> None:
    user = await verifier.verify(shared(claims(act={"sub": "billing"}, **scope)))
    assert (user.principal, user.actor) == (ADA, "billing")


@pytest.mark.parametrize(
    "changes",
    [
        {"act": {"sub": "billing"}},
        {"act": {"sub": "billing"}, "scope": "openid"},
        {"act": {"sub": "billing"}, "scope": "act_assistant"},
        {"act": {"sub": "billing"}, "scp": {"act_as": True}},
        {"act": "billing", "scope": "act_as"},
        {"act": {}, "scope": "act_as"},
    ],
)
async def test_without_the_scope_or_a_name_nobody_acts_for_a_user(
    verifier: UserVerifier, changes: dict[str, Any]
) -> None:
    with pytest.raises(TokenInvalid):
        await verifier.verify(shared(claims(**changes)))


async def test_what_was_verified_is_known_at_once_until_it_expires(
    verifier: UserVerifier, clock: Clock
) -> None:
    token = shared(claims())
    assert verifier.verify_cached(token) is None
    user = await verifier.verify(token)
    assert verifier.verify_cached(token) is user
    clock.now_s = user.expires_at_s
    assert verifier.verify_cached(token) is None
    with pytest.raises(TokenExpired):
        await verifier.verify(token)


async def test_the_leeway_holds_for_known_tokens_too(clock: Clock) -> None:
    verifier = UserVerifier(audience=AUDIENCE, secret=SECRET, leeway_s=5, clock=clock)
    token = shared(claims())
    user = await verifier.verify(token)
    clock.now_s = user.expires_at_s + 4.9
    assert verifier.verify_cached(token) is user
    clock.now_s = user.expires_at_s + 5
    with pytest.raises(TokenExpired):
        await verifier.verify(token)


async def test_a_key_that_the_provider_withdraws_takes_its_tokens_with_it(clock: Clock) -> None:
    keys = Keys(PROVIDER)
    verifier = UserVerifier(audience=AUDIENCE, jwks=keys, clock=clock)
    token = provided(claims())
    await verifier.verify(token)
    keys.key_set = key_set(ED)
    assert verifier.verify_cached(token) is None
    with pytest.raises(TokenInvalid, match="not known here"):
        await verifier.verify(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": ...},
        {"aud": {"factorychain-api": 1}},
        {"sub": ...},
        {"sub": ""},
        {"sub": 42},
        {"sub": ["ada"]},
        {"sub": "a\u0000b"},
        {"sub": "x" * 257},
        {"tenant": ""},
        {"tenant": None},
        {"tenant": ["acme"]},
        {"exp": ...},
        {"exp": "never"},
        {"exp": True},
        {"nbf": NOW_S + 60},
        {"iat": NOW_S + 60},
        {"nbf": "now"},
    ],
    ids=str,
)
async def test_a_claim_that_is_missing_or_wrong_makes_it_invalid(
    verifier: UserVerifier, changes: dict[str, Any]
) -> None:
    with pytest.raises(TokenInvalid):
        await verifier.verify(shared(claims(**changes)))


@pytest.mark.parametrize("exp", [1_790_000_000_000, 253_402_300_800, 2**62])
async def test_a_time_that_no_calendar_has_is_no_time(verifier: UserVerifier, exp: int) -> None:
    with pytest.raises(TokenInvalid, match="exp must be a time in Unix seconds"):
        await verifier.verify(shared(claims(exp=exp)))


async def test_an_expired_token_says_so(verifier: UserVerifier) -> None:
    with pytest.raises(TokenExpired):
        await verifier.verify(shared(claims(exp=NOW_S)))


async def test_another_issuer_is_refused_if_one_is_set(clock: Clock) -> None:
    verifier = UserVerifier(
        audience=AUDIENCE, issuer="https://idp.example", secret=SECRET, clock=clock
    )
    assert (await verifier.verify(shared(claims(iss="https://idp.example")))).principal == ADA
    for issuer in ("https://idp.example.evil", ["https://idp.example"], ...):
        with pytest.raises(TokenInvalid, match="issuer"):
            await verifier.verify(shared(claims(iss=issuer)))


async def test_a_wrong_signature_is_refused(verifier: UserVerifier) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    for token in (
        provided(claims(), key=stranger),
        hmac_signed({"alg": "HS256"}, claims(), b"another secret, of enough bytes too!"),
        shared(claims())[:-8] + "AAAAAAAA",
    ):
        with pytest.raises(TokenInvalid):
            await verifier.verify(token)


@pytest.mark.parametrize("kid", ["unknown", "", "ec", 7, None])
async def test_a_key_that_is_not_named_rightly_is_refused(verifier: UserVerifier, kid: Any) -> None:
    body = jwt.encode(claims(), RSA, algorithm="RS256").split(".")
    header = unsigned({"alg": "RS256", "typ": "JWT", "kid": kid}, {}).split(".")[0]
    with pytest.raises(TokenInvalid):
        await verifier.verify(".".join([header, *body[1:]]))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None])
async def test_an_unsigned_token_is_refused(verifier: UserVerifier, alg: Any) -> None:
    for header in ({"alg": alg, "typ": "JWT"}, {"alg": alg, "kid": "rsa"}):
        with pytest.raises(TokenInvalid):
            await verifier.verify(unsigned(header, claims()))


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
async def test_a_public_key_is_never_used_as_a_shared_secret(clock: Clock, kid: str) -> None:
    verifier = UserVerifier(audience=AUDIENCE, jwks=Keys(PROVIDER), clock=clock)
    key = PROVIDER.keys[kid].key
    encodings = [
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ]
    for secret in encodings:
        token = hmac_signed({"alg": "HS256", "typ": "JWT", "kid": kid}, claims(), secret)
        with pytest.raises(TokenInvalid, match="not accepted"):
            await verifier.verify(token)


async def test_a_key_is_used_with_algorithms_of_its_type_only(verifier: UserVerifier) -> None:
    token = provided(claims(), key=EC, alg="ES256", kid="rsa")
    with pytest.raises(TokenInvalid, match="not known here"):
        await verifier.verify(token)


async def test_the_shared_secret_is_no_algorithm_of_a_provider(clock: Clock) -> None:
    verifier = UserVerifier(audience=AUDIENCE, secret=SECRET, clock=clock)
    with pytest.raises(TokenInvalid, match="not accepted"):
        await verifier.verify(provided(claims()))


async def test_a_transaction_token_is_no_user_token(clock: Clock) -> None:
    # Even if an operator gave both kinds the same key and audience.
    verifier = UserVerifier(audience="both", jwks=Keys(key_set(ED)), clock=clock)
    with pytest.raises(TokenInvalid, match="another kind"):
        await verifier.verify(issued(TxnSigner(ED, "both", clock)).token)


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"b64": False}, {"typ": "dpop+jwt"}, {"typ": 1}]
)
async def test_a_header_that_asks_for_more_is_refused(
    verifier: UserVerifier, header: dict[str, Any]
) -> None:
    with pytest.raises(TokenInvalid):
        await verifier.verify(shared(claims(), **header))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "\ud800.b.c",
        "é.é.é",
        "eyJhbGciOiJIUzI1NiJ9.e30",
        "eyJhbGciOiJIUzI1NiJ9..x",
    ],
)
async def test_what_is_no_token_is_refused(verifier: UserVerifier, token: str) -> None:
    with pytest.raises(TokenInvalid):
        await verifier.verify(token)


async def test_a_huge_token_is_refused_before_it_is_read(verifier: UserVerifier) -> None:
    with pytest.raises(TokenInvalid, match="8192 characters"):
        await verifier.verify(shared(claims(groups=["x" * 100] * 100)))


@pytest.mark.parametrize("payload", [b"[]", b'"ada"', b"{", b"", b'{"exp": NaN}'])
async def test_a_signed_text_that_is_no_claims_is_refused(
    verifier: UserVerifier, payload: bytes
) -> None:
    token = jwt.api_jws.PyJWS(algorithms=["HS256"]).encode(payload, SECRET, algorithm="HS256")
    with pytest.raises(TokenInvalid):
        await verifier.verify(token)


def test_a_verifier_without_keys_or_audience_cannot_be_made() -> None:
    with pytest.raises(KeyUnusable, match="FACTORYCHAIN_USER_JWKS_URL"):
        UserVerifier(audience=AUDIENCE)
    with pytest.raises(KeyUnusable, match="AUDIENCE"):
        UserVerifier(audience="", secret=SECRET)


async def test_the_text_of_a_user_shows_no_claims(verifier: UserVerifier) -> None:
    user = await verifier.verify(shared(claims(email="ada@example.org")))
    assert "ada@example.org" not in repr(user)
    with pytest.raises(TypeError):
        user.claims["sub"] = "bob"  # type: ignore[index]  # that is what is tested
