"""The raw floor: four empty grpc.aio services in a chain, each in a process of its own.

No interceptors, no protobuf, no work: what any chain of four gRPC hops costs on this machine now.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import uvloop

from tests.bench.figures import Latency

HOPS = 4
_UNARY = "/floor.Floor/Unary"
_STREAM = "/floor.Floor/Stream"
_PAYLOAD = b"x" * 200


class _Hop(grpc.GenericRpcHandler):
    """Passes everything to the next hop, or answers itself when it is the last."""

    def __init__(self, downstream: str | None) -> None:
        channel = grpc.aio.insecure_channel(downstream) if downstream else None
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] | None = (
            channel.unary_unary(_UNARY) if channel else None
        )
        self._stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] | None = (
            channel.stream_stream(_STREAM) if channel else None
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if handler_call_details.method == _UNARY:
            return grpc.unary_unary_rpc_method_handler(self._answer)
        return grpc.stream_stream_rpc_method_handler(self._pass_on)

    async def _answer(self, request: bytes, context: object) -> bytes:
        return request if self._unary is None else await self._unary(request)

    async def _pass_on(
        self, requests: AsyncIterator[bytes], context: object
    ) -> AsyncIterator[bytes]:
        messages = requests if self._stream is None else self._stream(requests)
        async for message in messages:
            yield message


async def _serve(downstream: str | None) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Hop(downstream),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


@contextlib.asynccontextmanager
async def floor_chain() -> AsyncIterator[str]:
    """The address of the first of four hops, each in its own process."""
    processes: list[asyncio.subprocess.Process] = []
    address = ""
    try:
        for _ in range(HOPS):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.floor",
                *([address] if address else []),
                stdout=asyncio.subprocess.PIPE,
            )
            processes.append(process)
            assert process.stdout is not None
            address = f"127.0.0.1:{int(await process.stdout.readline())}"
        yield address
    finally:
        for process in processes:
            process.terminate()
            await process.wait()


@contextlib.asynccontextmanager
async def unary_call(address: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """What makes one unary call through four hops and back."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_UNARY)

        async def once() -> bytes:
            return await call(_PAYLOAD)

        yield once


async def unary_round_trip(address: str, *, at_once: int, calls: int) -> Latency:
    """A unary call through four hops and back."""
    async with unary_call(address) as call:
        for _ in range(20):
            await call()
        taken: list[float] = []

        async def caller(count: int) -> None:
            for _ in range(count):
                began = time.perf_counter()
                await call()
                taken.append(time.perf_counter() - began)

        await asyncio.gather(*(caller(max(1, calls // at_once)) for _ in range(at_once)))
    return Latency.of(taken)


async def stream_round_trip(address: str, *, messages: int) -> Latency:
    """A message on an open stream through four hops and back."""
    async with grpc.aio.insecure_channel(address) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(_STREAM)
        stream = method()
        taken: list[float] = []
        for index in range(messages + 20):
            began = time.perf_counter()
            await stream.write(_PAYLOAD)
            await stream.read()
            if index >= 20:
                taken.append(time.perf_counter() - began)
        stream.cancel()
    return Latency.of(taken)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1] if len(sys.argv) > 1 else None))
