"""HTTP on the edge."""

from __future__ import annotations

from typing import Any

import pytest

from factorychain._core.user_tokens import UserVerifier
from tests.integration.edge.chain import Chain
from tests.integration.edge.people import AUDIENCE, SECRET


async def test_it_says_that_it_is_alive(chain: Chain) -> None:
    async with chain.http.get(f"{chain.url}/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_it_says_whether_it_is_ready(chain: Chain, ready: bool, status: int) -> None:
    chain.ready = ready
    async with chain.http.get(f"{chain.url}/readyz") as response:
        assert response.status == status
        assert await response.json() == {"ready": ready, "integration": "ACTIVE"}


async def test_a_development_token_is_the_named_users(chain: Chain) -> None:
    asked = {"user": "ana", "tenant": "acme", "ttl_s": 60}
    async with chain.http.post(f"{chain.url}/v1/dev/token", json=asked) as response:
        found = await response.json()
        assert response.status == 200
    user = await UserVerifier(audience=AUDIENCE, secret=SECRET).verify(found["token"])
    assert (user.principal.tenant, user.principal.user) == ("acme", "ana")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"user":""}', b'{"user":"a","ttl_s":-1}', b'{"user":5}']
)
async def test_a_bad_request_for_a_token_names_the_field(chain: Chain, body: bytes) -> None:
    async with chain.http.post(f"{chain.url}/v1/dev/token", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["reason"] == "INVALID_FIELD"


async def test_there_are_no_development_tokens_in_production(start_chain: Any) -> None:
    chain: Chain = await start_chain(mode="production")
    async with chain.http.post(f"{chain.url}/v1/dev/token", json={"user": "ana"}) as response:
        assert response.status == 404


async def test_a_page_of_another_site_gets_no_development_token(chain: Chain) -> None:
    headers = {"Origin": "https://evil.test"}
    for method in ("POST", "OPTIONS"):
        url = f"{chain.url}/v1/dev/token"
        async with chain.http.request(
            method, url, data=b'{"user":"a"}', headers=headers
        ) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_of_this_machine_may_ask_from_another_port(chain: Chain) -> None:
    headers = {"Origin": "http://localhost:5173"}
    url = f"{chain.url}/v1/dev/token"
    async with chain.http.options(url, headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Headers"] == "content-type"
    async with chain.http.post(url, json={"user": "ana"}, headers=headers) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"


async def test_development_tokens_are_rate_limited(chain: Chain) -> None:
    statuses = set()
    for _ in range(260):
        async with chain.http.post(f"{chain.url}/v1/dev/token", json={"user": "a"}) as response:
            statuses.add(response.status)
            if response.status == 429:
                assert int(response.headers["Retry-After"]) >= 1
    assert statuses == {200, 429}


async def test_the_console_is_served_without_a_way_out(chain: Chain) -> None:
    for path in ("/", "/console.css", "/console.js", "/factorychain.js"):
        async with chain.http.get(chain.url + path) as response:
            assert response.status == 200
            policy = response.headers["Content-Security-Policy"]
            text = await response.text()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "https://" not in text, path


async def test_what_is_not_there_is_a_json_error(chain: Chain) -> None:
    async with chain.http.get(f"{chain.url}/nowhere") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "NOT_FOUND"
