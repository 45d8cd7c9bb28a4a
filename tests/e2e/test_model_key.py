"""The operator's key of a model, and a user's secret of a service, are in the gateway and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import pytest_asyncio

from factorychain.local.trace_sink import ExportedSpan, TraceSink
from tests.e2e.chain import Chain, running_chain
from tests.e2e.sinks import children, stored
from tests.e2e.sockets import Socket, connected
from tests.vendor import Turn, Vendor, VendorUsage

pytestmark = pytest.mark.asyncio(loop_scope="session")

_KEY = f"sk-canary-{secrets.token_hex(16)}"
_SECRET = f"secret-canary-{secrets.token_hex(16)}"


class Place(NamedTuple):
    chain: Chain
    vendor: Vendor
    traces: TraceSink
    temporary: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder, traces = tmp_path_factory.mktemp("models"), TraceSink()
    temporary = folder / "tmp"
    temporary.mkdir()
    await traces.start()
    async with Vendor(_KEY) as vendor:
        # A careless server, which says in its answers by whose key it was asked.
        vendor.always = lambda got: Turn(text=["Your key: ", got.key], usage=VendorUsage(11, 7))
        credentials = folder / "credentials.toml"
        credentials.write_text(
            f'[tracker]\nbase_url = "{vendor.url}/api"\nusers.default.ada = "{_SECRET}"\n'
        )
        env = {
            "FACTORYCHAIN_LLM_BASE_URL": vendor.openai_url,
            "FACTORYCHAIN_LLM_API_KEY": _KEY,
            "FACTORYCHAIN_CREDENTIALS_FILE": str(credentials),
            "FACTORYCHAIN_LOG_LEVEL": "debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "TMPDIR": str(temporary),
        }
        given = ("--agents", "tests.e2e.model_agents")
        async with running_chain(folder / "chain", given, env) as chain:
            yield Place(chain, vendor, traces, temporary)
    await traces.stop()


async def test_the_canaries_are_nowhere_but_at_the_vendor(place: Place) -> None:
    chain = place.chain
    async with connected(chain.state.edge, chain.token("ada")) as ada:
        endings = [await _ended(ada, text) for text in ("say", "fail")]
        waiting = (await ada.start("asks-model", "wait", thread="t-wait"))["run"]
        await ada.wait_for(lambda f: _has(f, waiting, "custom"))
        # A run is there, with all that it can have.
        _look_at_processes(chain)
        await ada.result("cancel", run=waiting)
        texts = ada.texts
    spans = await _chat_spans(place, 3)
    assert [each["type"] for each in endings] == ["agent_completed", "agent_failed"]
    assert {each.key for each in place.vendor.requests} == {_KEY, _SECRET}
    assert _found("".join(texts)) == []
    assert "[removed]" in "".join(texts)
    assert _found(chain.log()) == []
    assert "the model said" in chain.log()
    assert _found(str(list(place.traces.spans))) == []
    async for subject, payload in stored(chain):
        assert _found(payload.decode("latin-1")) == [], subject
    for path in (*place.temporary.rglob("*"), *chain.data.path.rglob("*")):
        if path.is_file() and path.suffix != ".sock":
            assert _found(path.read_text(errors="replace")) == [], path
    assert {each.attributes["gen_ai.usage.output_tokens"] for each in spans} == {"7"}


async def test_the_request_to_the_model_is_a_span_below_its_run_and_its_usage_in_the_ending(
    place: Place,
) -> None:
    async with connected(place.chain.state.edge, place.chain.token("ada")) as ada:
        ending = await _ended(ada, "say")
    assert ending["data"]["usage"] == {
        "input_tokens": 11,
        "output_tokens": 7,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "requests": 1,
    }
    trace_id = ending["trace"].split("-")[1]
    (chat,) = await _chat_spans(place, 1, trace_id)
    by_id = {each.span_id: each for each in place.traces.of_trace(trace_id)}
    for name, value in {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": "11",
        "server.address": "127.0.0.1",
        "factorychain.run": ending["run"],
    }.items():
        assert chat.attributes[name] == value
    async with asyncio.timeout(60):
        while chat.parent_span_id not in by_id:
            await asyncio.sleep(0.05)
            by_id = {each.span_id: each for each in place.traces.of_trace(trace_id)}
    assert by_id[chat.parent_span_id].name == "invoke_agent asks-model"


async def _ended(socket: Socket, text: str) -> dict[str, Any]:
    started = await socket.start("asks-model", text)
    return await socket.ending(started["run"])


def _has(frame: dict[str, Any], run: str, kind: str) -> bool:
    events = frame.get("events", ())
    return any(each["run"] == run and each["type"] == kind for each in events)


async def _chat_spans(place: Place, count: int, trace_id: str = "") -> list[ExportedSpan]:
    async with asyncio.timeout(60):
        while True:
            spans = place.traces.of_trace(trace_id) if trace_id else list(place.traces.spans)
            found = [each for each in spans if each.name == "chat m"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


_GONE = (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess)
"""A process that has just ended says one of these."""


def _look_at_processes(chain: Chain) -> None:
    """Environments and command lines of all processes; the memory of those that agents' code is in."""
    supervisor = psutil.Process(chain.process.pid)
    for each in supervisor.children(recursive=True):
        with contextlib.suppress(*_GONE):
            shown = Path(f"/proc/{each.pid}/environ").read_text(errors="replace")
            assert _found(shown + " ".join(each.cmdline())) == [], each
    keys_of_runs = 0
    for each in children(chain):
        for region in _memory(each.pid):
            keys_of_runs += region.count(b"fc-run-")
            assert _found(region.decode("latin-1")) == [], each
    # That of the run that waits is there: this search finds what is to be found.
    assert keys_of_runs or os.geteuid() != 0


def _memory(pid: int) -> Iterator[bytes]:
    """What a process has in its memory, as far as it may be read here."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        memory = Path(f"/proc/{pid}/mem").open("rb", buffering=0)  # noqa: SIM115
    except (PermissionError, *_GONE):
        return
    with memory:
        for line in maps:
            place, rights = line.split()[:2]
            begin, end = (int(each, 16) for each in place.split("-"))
            if rights.startswith("rw"):
                try:
                    memory.seek(begin)
                    yield memory.read(end - begin)
                except OSError:
                    continue


def _found(text: str) -> list[str]:
    return [each for each in (_KEY, _SECRET) if each in text]
