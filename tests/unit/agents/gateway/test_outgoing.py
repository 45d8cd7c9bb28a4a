"""Proxies are the operator's, and hold for what they are meant for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from yarl import URL

from factorychain_agents.gateway.outgoing import proxy_of


@pytest.fixture(autouse=True)
def _unknown() -> Iterator[None]:
    proxy_of.cache_clear()
    yield
    proxy_of.cache_clear()


def test_proxies_of_the_environment_hold_unless_a_server_is_exempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.1,.internal")
    monkeypatch.delenv("http_proxy", raising=False)
    for url, proxy in (
        ("https://api.openai.com/v1", "http://proxy:3128"),
        ("https://vllm.internal/v1", None),
        ("https://10.0.0.1:8000/v1", None),
        ("http://api.openai.com/v1", None),
    ):
        assert proxy_of(URL(url)) == proxy, url
