"""gRPC's calls over the network of the simulation: what `grpc.aio.insecure_channel` and
`grpc.aio.server` give the services.

Invariants: requests and answers cross as bytes; a call ends once, with a status; when a connection
breaks, the calls on it end UNAVAILABLE for the caller and are cancelled for the handler.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

import grpc

from tests.simulation.network import End, Network

Metadata = Sequence[tuple[str, str | bytes]]
_OK = grpc.StatusCode.OK


@dataclass(frozen=True, slots=True)
class Begin:
    """A call begins."""

    call: int
    path: str
    metadata: Metadata
    left_s: float | None
    data: bytes | None
    """The request, unless requests are streamed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, in either direction."""

    call: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Half:
    """The caller sends no more."""

    call: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The call is over; from the caller: it does not want it any more."""

    call: int
    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


class Incoming:
    """A queue of what comes until an end or an error."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._error: BaseException | None = None

    def put(self, item: object) -> None:
        self._items.append(item)
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Any:
        """The next item, or `grpc.aio.EOF`; raises the error."""
        while not self._items:
            if self._over:
                if self._error is not None:
                    raise self._error
                return grpc.aio.EOF
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()

    async def iterate(self) -> AsyncIterator[Any]:
        while (item := await self.next()) is not grpc.aio.EOF:
            yield item


# --- the caller ---------------------------------------------------------------------------------


class Channel:
    """A channel to a target, which may be several replicas: each call takes the next."""

    def __init__(self, network: Network, target: str) -> None:
        self._network = network
        self._target = target
        self._links: dict[str, _Link] = {}
        self._turn = 0
        self._closed = False

    def unary_unary(self, path: str, serialize: Any, deserialize: Any) -> Callable[..., Call]:
        return lambda request, **options: self._begin(
            path, deserialize, serialize(request), options
        )

    unary_stream = unary_unary

    def stream_stream(self, path: str, serialize: Any, deserialize: Any) -> Callable[..., Call]:
        def begin(_requests: None, **options: Any) -> Call:
            call = self._begin(path, deserialize, None, options)
            call.serialize = serialize
            return call

        return begin

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        up = self._network.addresses(self._target)
        return grpc.ChannelConnectivity.READY if up else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def channel_ready(self) -> None:
        while not self._network.addresses(self._target):  # noqa: ASYNC110 - time is free
            await asyncio.sleep(0.1)

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        for link in list(self._links.values()):
            link.end.close()
            link.lost()

    def _begin(self, path: str, read: Any, data: bytes | None, options: dict[str, Any]) -> Call:
        link = None if self._closed else self._link()
        return Call(link, path, read, data, options.get("metadata") or (), options.get("timeout"))

    def _link(self) -> _Link | None:
        up = self._network.addresses(self._target)
        if not up:
            return None
        self._turn += 1
        address = up[self._turn % len(up)]
        link = self._links.get(address)
        if link is None or not link.end.open:
            end = self._network.connect(address)
            if end is None:
                return None
            link = self._links[address] = _Link(end)
        return link


class _Link:
    """One connection of a channel, and the calls on it."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.numbers = count(1)
        self.calls: dict[int, Call] = {}
        end.on_message, end.on_lost = self._on_message, self.lost

    def _on_message(self, message: Message | Finish) -> None:
        call = self.calls.get(message.call)
        if call is None:
            return
        if isinstance(message, Message):
            call.take(message.data)
        else:
            call.finish(message.code, message.details, message.trailing)

    def lost(self) -> None:
        for call in list(self.calls.values()):
            call.finish(grpc.StatusCode.UNAVAILABLE, "the connection broke")


class Call:
    """One call, of any kind, as its caller sees it."""

    serialize: Callable[[Any], bytes]

    def __init__(
        self,
        link: _Link | None,
        path: str,
        read: Callable[[bytes], Any],
        data: bytes | None,
        metadata: Metadata,
        timeout_s: float | None,
    ) -> None:
        self._link = link
        self._read = read
        self._incoming = Incoming()
        self._status: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        if link is None:
            self.finish(grpc.StatusCode.UNAVAILABLE, "nobody listens there")
            return
        self._number = next(link.numbers)
        link.calls[self._number] = self
        if timeout_s is not None:
            loop = asyncio.get_running_loop()
            late = (grpc.StatusCode.DEADLINE_EXCEEDED, "too late")
            self._timer = loop.call_later(max(0.0, timeout_s), self._give_up, *late)
        link.end.send(Begin(self._number, path, tuple(metadata), timeout_s, data))

    # --- what comes -------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        self._incoming.put(self._read(data))

    def finish(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        if self._status.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.calls.pop(self._number, None)
        self._status.set_result(Finish(self._number, code, details, trailing))
        error = None if code is _OK else _error(code, details, trailing)
        self._incoming.end(asyncio.CancelledError() if code is grpc.StatusCode.CANCELLED else error)

    def _give_up(self, code: grpc.StatusCode, details: str) -> bool:
        if self._status.done():
            return False
        if self._link is not None:
            self._link.end.send(Finish(self._number, code, details))
        self.finish(code, details)
        return True

    # --- grpc.aio's interface ---------------------------------------------------------------

    def cancel(self) -> bool:
        return self._give_up(grpc.StatusCode.CANCELLED, "cancelled by its caller")

    def done(self) -> bool:
        return self._status.done()

    def cancelled(self) -> bool:
        return self.done() and self._status.result().code is grpc.StatusCode.CANCELLED

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._status.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        return (await asyncio.shield(self._status)).code

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only().__await__()

    async def _only(self) -> Any:
        found = await self.read()
        await asyncio.shield(self._status)
        return found

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._incoming.iterate()

    async def read(self) -> Any:
        try:
            return await self._incoming.next()
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def write(self, request: object) -> None:
        if self._status.done():
            finish = self._status.result()
            if finish.code is _OK:
                raise asyncio.InvalidStateError("the call is over")
            raise _error(finish.code, finish.details, finish.trailing)
        assert self._link is not None, "a call without a connection is over"
        self._link.end.send(Message(self._number, self.serialize(request)))

    async def done_writing(self) -> None:
        if not self._status.done() and self._link is not None:
            self._link.end.send(Half(self._number))


def _error(code: grpc.StatusCode, details: str, trailing: Metadata) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=details
    )


# --- the server ---------------------------------------------------------------------------------


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
            if handler.unary_unary:
                await context.write(answer)
            self.end.send(Finish(call, _OK))
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
