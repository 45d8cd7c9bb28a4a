"""Clients that were made before any run send the key of the run that they are used in, to the gateway alone."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import httpx
import httpx2
import pytest

from factorychain._instance import model_access
from factorychain._instance.active import ActiveRun
from factorychain._instance.model_access import PLACEHOLDER
from factorychain._instance.spec import RunSpec
from tests.silent_host import SilentHost

URL, KEY = "http://127.0.0.1:9", "fc-run-own"
_TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunSpec]:
    monkeypatch.setattr(model_access, "_here", None)
    for name, value in model_access.environment(URL).items():
        monkeypatch.setenv(name, value)
    before = list(sys.meta_path)
    yield RunSpec("t", "u", "th", "r", "a", 1, "{}", trace=_TRACE, gateway_url=URL, gateway_key=KEY)
    sys.meta_path[:] = before


def _sent(library: ModuleType, url: str, **headers: str) -> dict[str, str]:
    seen: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.headers))
        response: httpx.Response = library.Response(200)
        return response

    with library.Client(transport=library.MockTransport(answer), headers=headers) as client:
        client.get(url)
    return seen[0]


def test_variables_lead_every_client_and_leave_out_what_the_agent_declares() -> None:
    assert model_access.environment(URL, KEY) == {
        "OPENAI_BASE_URL": f"{URL}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": f"{URL}/anthropic",
        "ANTHROPIC_API_KEY": KEY,
    }
    own = model_access.environment(URL, KEY, besides=["OPENAI_API_KEY", "OTHER"])
    assert set(own) == {"ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"}


def test_entering_a_run_puts_its_key_in_place_of_the_placeholder(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the author's own")
    model_access.enter(spec)
    assert os.environ["OPENAI_API_KEY"] == KEY
    assert os.environ["ANTHROPIC_API_KEY"] == "the author's own"


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_placeholder_becomes_the_runs_key_on_the_way_to_the_gateway_alone(
    spec: RunSpec, library: ModuleType
) -> None:
    model_access.enter(spec)
    bearer = f"Bearer {PLACEHOLDER}"
    sent = _sent(library, f"{URL}/v1/x", authorization=bearer, **{"x-api-key": PLACEHOLDER})
    assert (sent["authorization"], sent["x-api-key"]) == (f"Bearer {KEY}", KEY)
    for other in ("http://127.0.0.1:91/v1/x", "http://elsewhere/127.0.0.1:9/"):
        sent = _sent(library, other, authorization=bearer)
        assert sent["authorization"] == bearer, other
    sent = _sent(library, f"{URL}/v1/x", authorization="Bearer mine")
    assert sent["authorization"] == "Bearer mine"


async def test_many_runs_in_one_process_send_each_its_own(spec: RunSpec) -> None:
    model_access.lead_clients()
    loop = asyncio.get_running_loop()

    async def one(number: int) -> str:
        run = ActiveRun(replace(spec, gateway_key=f"fc-run-{number}"), SilentHost(), loop)
        with run.entered():
            await asyncio.sleep(0)
            sent = _sent(httpx2, f"{URL}/v1/x", authorization=f"Bearer {PLACEHOLDER}")
            assert sent["traceparent"] == _TRACE
            return sent["authorization"]

    found = await asyncio.gather(*(one(number) for number in range(5)))
    assert found == [f"Bearer fc-run-{number}" for number in range(5)]
    outside = _sent(httpx2, f"{URL}/v1/x", authorization=f"Bearer {PLACEHOLDER}")
    assert outside["authorization"] == f"Bearer {PLACEHOLDER}"
