"""A service as a real process: signals, exit status, configuration, export of what it did."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SAMPLE = Path(__file__).with_name("sample_service.py")
ROOT = Path(__file__).parents[3]


class Process:
    """The sample service, with what it says and logs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()

    async def until_log(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        while raw := await self.process.stderr.readline():
            line: dict[str, Any] = json.loads(raw)
            if line["event"] == event:
                return line
        raise AssertionError(f"the process ended without logging {event!r}")

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> tuple[int, str, str]:
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


async def start(how: str, **variables: str) -> Process:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environ = {**kept, "PYTHONPATH": str(ROOT), "FACTORYCHAIN_LOG_FORMAT": "json", **variables}
    pipe = asyncio.subprocess.PIPE
    return Process(
        await asyncio.create_subprocess_exec(
            sys.executable, str(SAMPLE), how, stdout=pipe, stderr=pipe, env=environ
        )
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_status_zero(number: signal.Signals) -> None:
    process = await start("works")
    await process.until_log("ready")
    process.tell(number)
    status, out, err = await process.ended()
    assert status == 0
    assert out.split() == ["starting", "started", "stopping", "stopped"]
    assert "Traceback" not in err
    assert "was left" not in err


async def test_a_signal_in_the_middle_of_the_start_drains_too() -> None:
    process = await start("hangs")
    assert await process.line() == "starting"
    process.tell(signal.SIGTERM)
    status, out, _ = await process.ended()
    assert (status, out.split()) == (0, ["stopping", "stopped"])


async def test_a_second_signal_ends_at_once() -> None:
    process = await start("never-stops")
    await process.until_log("ready")
    process.tell(signal.SIGTERM)
    while await process.line() != "stopping":
        pass
    process.tell(signal.SIGTERM)
    status, _, _ = await process.ended()
    assert status == 1


async def test_a_component_that_does_not_stop_is_left_after_the_deadline() -> None:
    process = await start("never-stops", FACTORYCHAIN_DRAIN_TIMEOUT_S="0.3")
    await process.until_log("ready")
    process.tell(signal.SIGTERM)
    assert (await process.until_log("a component did not stop in time"))["component"] == "said"
    status, _, _ = await process.ended()
    assert status == 0


@pytest.mark.parametrize("how", ["clings", "holds-a-thread"])
async def test_code_that_does_not_let_go_does_not_keep_the_process(how: str) -> None:
    process = await start(how)
    await process.until_log("ready")
    process.tell(signal.SIGTERM)
    status, out, err = await asyncio.wait_for(process.ended(), 30)
    assert status == 0
    assert out.split()[-1] == "stopped"
    assert "code that does not stop was left" in err


async def test_a_start_that_fails_ends_with_status_one_and_says_how_to_mend_it() -> None:
    process = await start("fails")
    line = await process.until_log("the service did not start")
    assert line["error"] == "port 7103 is in use; choose another"
    status, out, _ = await process.ended()
    assert status == 1
    assert out.split()[-1] == "stopped"


async def test_the_reason_of_a_start_that_fails_is_left_where_it_is_looked_for(
    tmp_path: Path,
) -> None:
    reason = tmp_path / "reason"
    process = await start("fails", FACTORYCHAIN_TERMINATION_FILE=str(reason))
    await process.ended()
    assert reason.read_text() == "port 7103 is in use; choose another"


async def test_a_wrong_configuration_ends_with_status_two_before_anything_starts() -> None:
    process = await start("works", FACTORYCHAIN_EVENT_MAX_BYTES="1", FACTORYCHAIN_LOG_LEVEL="loud")
    status, out, err = await process.ended()
    assert (status, out) == (2, "")
    assert "FACTORYCHAIN_EVENT_MAX_BYTES: " in err
    assert "FACTORYCHAIN_LOG_LEVEL: " in err
    assert "Traceback" not in err


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what comes."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []
        self.port = 0

    async def Export(  # noqa: N802 - gRPC's name
        self, request: Any, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], each.name) for each in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    server = grpc.aio.server()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(found, server)
    found.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield found
    await server.stop(None)


async def test_what_a_service_did_is_exported_before_it_ends(collector: Collector) -> None:
    process = await start(
        "works",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_INSECURE="true",
        OTEL_METRICS_EXPORTER="none",
    )
    await process.until_log("ready")
    process.tell(signal.SIGTERM)
    status, _, err = await process.ended()
    assert status == 0, err
    assert collector.spans == [("factorychain-emitter", "work of the sample")]


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_never_answers_holds_up_neither_start_nor_end(
    protocol: str, silent: int
) -> None:
    process = await start(
        "works",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_INSECURE="true",
        OTEL_METRICS_EXPORTER="none",
    )
    await process.until_log("ready")
    process.tell(signal.SIGTERM)
    began_s = time.monotonic()
    status, out, _ = await process.ended()
    assert status == 0
    assert out.split()[-1] == "stopped"
    # Three seconds to flush and a little to end, instead of half a minute of retries.
    assert time.monotonic() - began_s < 8
