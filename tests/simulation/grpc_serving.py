"""What `grpc.aio.server` gives the services in a simulation.

Invariant: a handler is cancelled when its caller, or the connection, is gone, and answers once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from tests.simulation.grpc_wire import OK, Begin, Finish, Half, Incoming, Message, Metadata
from tests.simulation.network import End, Network


class Server:
    """What `grpc.aio.server` gives; it listens at the address that it is told, port included."""

    def __init__(self, network: Network, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._network = network
        self._handlers = handlers[0]
        self._addresses: list[str] = []
        self._served: dict[_Served, None] = {}

    def add_insecure_port(self, address: str) -> int:
        self._addresses.append(address)
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        for address in self._addresses:
            self._network.listen(address, self._accept)

    async def stop(self, grace: float | None) -> None:
        for address in self._addresses:
            self._network.unlisten(address)
        running = [task for each in self._served for task in each.tasks.values()]
        if running:
            await asyncio.wait(running, timeout=grace)
        for served in list(self._served):
            served.end.close()
            served.lost()

    def _accept(self, end: End) -> None:
        served = _Served(end, self._handlers, lambda: self._served.pop(served, None))
        self._served[served] = None


class _Served:
    """One connection of a server, and the handlers that run for it."""

    def __init__(
        self, end: End, handlers: grpc.GenericRpcHandler, gone: Callable[[], object]
    ) -> None:
        self.end = end
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._requests: dict[int, tuple[Incoming, Any]] = {}
        self._handlers = handlers
        self._gone = gone
        end.on_message, end.on_lost = self._on_message, self.lost

    def _on_message(self, message: Begin | Message | Half | Finish) -> None:
        if isinstance(message, Begin):
            self._begin(message)
            return
        requests = self._requests.get(message.call)
        if requests is None:
            return
        if isinstance(message, Message):
            requests[0].put(requests[1](message.data))
        elif isinstance(message, Half):
            requests[0].end()
        else:
            requests[0].end(asyncio.CancelledError())
            self.tasks[message.call].cancel()

    def _begin(self, begin: Begin) -> None:
        handler = self._handlers.service(_Details(begin.path, tuple(begin.metadata)))
        assert handler is not None, f"nobody serves {begin.path}"
        requests = Incoming()
        self._requests[begin.call] = requests, handler.request_deserializer
        context = _Context(self.end, begin, handler.response_serializer)
        coro = self._serve(begin, handler, requests, context)
        self.tasks[begin.call] = asyncio.get_running_loop().create_task(coro, name=begin.path)

    async def _serve(
        self, begin: Begin, handler: Any, requests: Incoming, context: _Context
    ) -> None:
        call = begin.call
        serve = handler.unary_unary or handler.unary_stream or handler.stream_stream
        given = requests.iterate()
        if begin.data is not None:
            given = handler.request_deserializer(begin.data)
        try:
            answer = await serve(given, context)
            data = handler.response_serializer(answer) if handler.unary_unary else None
            self.end.send(Finish(call, OK, data=data))
        except _Aborted as aborted:
            self.end.send(Finish(call, *aborted.args))
        except asyncio.CancelledError:
            self.end.send(Finish(call, grpc.StatusCode.UNAVAILABLE, "the handler was cancelled"))
        finally:
            self.tasks.pop(call, None)
            self._requests.pop(call, None)

    def lost(self) -> None:
        self._gone()
        for task in list(self.tasks.values()):
            task.cancel()


@dataclass(frozen=True, slots=True)
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class _Aborted(grpc.aio.AbortError):
    """The handler ended the call with a status."""


class _Context:
    """What handlers use of `grpc.aio.ServicerContext`."""

    def __init__(self, end: End, begin: Begin, serialize: Callable[[Any], bytes] | None) -> None:
        self._end = end
        self._call = begin.call
        self._metadata = begin.metadata
        self._serialize = serialize
        self._until_s = None
        if begin.left_s is not None:
            self._until_s = asyncio.get_running_loop().time() + begin.left_s

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        if self._until_s is None:
            return None
        return max(0.0, self._until_s - asyncio.get_running_loop().time())

    def auth_context(self) -> dict[str, Any]:
        return {}

    async def write(self, message: object) -> None:
        assert self._serialize is not None, "generated handlers have one"
        self._end.send(Message(self._call, self._serialize(message)))

    async def abort(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> NoReturn:
        raise _Aborted(code, details, tuple(trailing))
