"""Keys from files that change and from a provider that comes and goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from factorychain._core.execution_context import Scope
from factorychain._core.ids import Principal
from factorychain._core.jwks import JwksFile, JwksUrl
from factorychain._core.keys import (
    KeyUnusable,
    TxnKey,
    jwks_document,
    new_secret,
    read_secret,
    write_private,
)
from factorychain._core.settings import TxnTokenSettings, UserTokenSettings
from factorychain._core.txn_tokens import TxnSigner, TxnVerifier
from factorychain._core.user_tokens import UserVerifier, mint_user_token
from factorychain.errors import ChainDegraded
from tests.token_samples import Clock

ONE, OTHER = TxnKey.generate(), TxnKey.generate()


def test_a_private_file_is_for_its_owner_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "txn.pem"
    write_private(path, ONE.to_pem())
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_private(path, OTHER.to_pem())
    assert TxnKey.from_file(path).kid == ONE.kid


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "txn.pem"
    with pytest.raises(KeyUnusable, match=r"txn\.pem: cannot be read"):
        TxnKey.from_file(path)
    path.write_text("nonsense")
    with pytest.raises(KeyUnusable, match=r"txn\.pem: .*openssl genpkey"):
        TxnKey.from_file(path)


def test_a_secret_is_read_without_its_line_end_and_must_be_long(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = new_secret()
    path.write_text(secret + "\n")
    assert read_secret(path) == secret.encode()
    path.write_text("short")
    with pytest.raises(KeyUnusable, match="at least 32 bytes"):
        read_secret(path)


def test_secrets_in_inherited_descriptors_can_be_read_more_than_once() -> None:
    descriptor = os.memfd_create("secret")
    try:
        os.write(descriptor, jwks_document([ONE]).encode())
        source = JwksFile(Path(f"/dev/fd/{descriptor}"))
        for _ in range(2):
            assert set(source.current().keys) == {ONE.kid}
            assert JwksFile(Path(f"/dev/fd/{descriptor}")).current().find(ONE.kid)
    finally:
        os.close(descriptor)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks_document([ONE]))
    source = JwksFile(path)
    before = source.current()
    assert source.current() is before
    replacement = tmp_path / "new"
    replacement.write_text(jwks_document([ONE, OTHER]))
    replacement.replace(path)
    assert set(source.current().keys) == {ONE.kid, OTHER.kid}


def test_a_file_that_breaks_or_goes_leaves_the_keys_before_it(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks_document([ONE]))
    source = JwksFile(path)
    source.current()
    path.write_text("{")
    assert set(source.current().keys) == {ONE.kid}
    path.unlink()
    assert set(source.current().keys) == {ONE.kid}
    path.write_text(jwks_document([OTHER]))
    assert set(source.current().keys) == {OTHER.kid}


def test_a_file_that_never_was_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"jwks\.json"):
        JwksFile(tmp_path / "jwks.json").current()


async def test_settings_make_signers_and_verifiers_that_agree(tmp_path: Path) -> None:
    key_file, jwks_file, secret_file = (tmp_path / name for name in ("key", "jwks", "secret"))
    write_private(key_file, ONE.to_pem())
    jwks_file.write_text(jwks_document([ONE]))
    write_private(secret_file, new_secret().encode())
    txn = TxnTokenSettings(txn_jwks_file=jwks_file)
    users = UserTokenSettings(user_secret_file=secret_file)
    # The two kinds of tokens must never share an audience, least of all by default.
    assert txn.trust_domain != users.user_audience
    ada = Principal("acme", "ada")
    context = TxnSigner.from_settings(txn, key_file).issue(
        principal=ada,
        thread="t1",
        run="r" + "a" * 24,
        agent="researcher",
        attempt=1,
        scope=Scope.RUN,
        base=0,
        base_seq=0,
        base_epoch=1,
        deadline_s=4_000_000_000,
        limits={},
    )
    assert TxnVerifier.from_settings(txn).verify(context.token).principal == ada
    token = mint_user_token(read_secret(secret_file), ada, ttl_s=60, audience=users.user_audience)
    assert (await UserVerifier.from_settings(users).verify(token)).principal == ada


@dataclass
class Provider:
    """An identity provider's JWKS endpoint."""

    url: str = ""
    document: str = field(default_factory=lambda: jwks_document([ONE]))
    status: int = 200
    requests: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, _request: web.Request) -> web.Response:
        self.requests += 1
        self.asked.set()
        await self.go_on.wait()
        return web.Response(
            text=self.document, status=self.status, headers={"Location": "/elsewhere"}
        )


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    served = Provider()
    served.go_on.set()
    app = web.Application()
    app.router.add_get("/jwks", served.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    served.url = f"http://{host}:{port}/jwks"
    yield served
    await runner.cleanup()


@pytest.fixture
def clock() -> Clock:
    return Clock(0)


@pytest.fixture
async def source(provider: Provider, clock: Clock) -> AsyncIterator[JwksUrl]:
    url = JwksUrl(provider.url, max_age_s=300, min_refetch_s=10, clock=clock)
    yield url
    await url.stop()


async def test_keys_are_fetched_once_for_all_who_wait(provider: Provider, source: JwksUrl) -> None:
    found = await asyncio.gather(*(source.with_key(ONE.kid) for _ in range(50)))
    assert all(each.find(ONE.kid) for each in found)
    assert provider.requests == 1


async def test_who_leaves_in_mid_fetch_takes_the_keys_from_nobody(
    provider: Provider, source: JwksUrl
) -> None:
    provider.go_on.clear()
    leaving = asyncio.create_task(source.with_key(ONE.kid))
    await provider.asked.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    staying = asyncio.create_task(source.with_key(ONE.kid))
    provider.go_on.set()
    assert (await staying).find(ONE.kid)
    assert provider.requests == 1


async def test_a_new_key_is_fetched_when_a_token_names_it(
    provider: Provider, source: JwksUrl, clock: Clock
) -> None:
    await source.with_key(ONE.kid)
    provider.document = jwks_document([ONE, OTHER])
    clock.now_s += 10
    assert (await source.with_key(OTHER.kid)).find(OTHER.kid)


async def test_unknown_keys_cannot_make_us_flood_the_provider(
    provider: Provider, source: JwksUrl, clock: Clock
) -> None:
    for n in range(100):
        assert (await source.with_key(f"forged-{n}")).find(f"forged-{n}") is None
    assert provider.requests == 1
    clock.now_s += 10
    await asyncio.gather(*(source.with_key(f"forged-{n}") for n in range(100)))
    assert provider.requests == 2


async def test_a_withdrawn_key_is_forgotten_when_the_document_is_old(
    provider: Provider, source: JwksUrl, clock: Clock
) -> None:
    before = await source.with_key(ONE.kid)
    provider.document = jwks_document([OTHER])
    clock.now_s += 299
    assert await source.with_key(ONE.kid) is before
    clock.now_s += 1
    assert (await source.with_key(ONE.kid)).find(ONE.kid) is None


async def test_the_same_document_again_keeps_what_was_verified(
    provider: Provider, source: JwksUrl, clock: Clock
) -> None:
    before = await source.with_key(ONE.kid)
    clock.now_s += 300
    assert await source.with_key(ONE.kid) is before
    assert provider.requests == 2


@pytest.mark.parametrize(
    ("status", "document"), [(500, "{}"), (302, "{}"), (200, "no JSON"), (200, "x" * 2_000_000)]
)
async def test_a_provider_in_trouble_leaves_the_keys_before(
    provider: Provider, source: JwksUrl, clock: Clock, status: int, document: str
) -> None:
    await source.with_key(ONE.kid)
    provider.status, provider.document = status, document
    clock.now_s += 300
    assert (await source.with_key(ONE.kid)).find(ONE.kid)


async def test_a_provider_that_never_answered_is_no_fault_of_the_token(
    provider: Provider, clock: Clock
) -> None:
    provider.status = 503
    source = JwksUrl(provider.url, clock=clock)
    await source.start()
    with pytest.raises(ChainDegraded, match="identity provider"):
        await source.with_key(ONE.kid)
    provider.status = 200
    clock.now_s += 10
    assert (await source.with_key(ONE.kid)).find(ONE.kid)
    await source.stop()
