"""What `grpc.aio.insecure_channel` gives the services in a simulation.

Invariant: a call ends once, with a status; when its connection breaks, with UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from itertools import count
from typing import Any

import grpc

from tests.simulation.grpc_wire import OK, Begin, Finish, Half, Incoming, Message, Metadata
from tests.simulation.network import End, Network


class Channel:
    """A channel to a target, which may be several replicas: each call takes the next."""

    def __init__(self, network: Network, target: str) -> None:
        self._network = network
        self._target = target
        self._links: dict[str, _Link] = {}
        self._turn = network.any_of(1 << 16)  # gRPC, too, begins anywhere
        self._closed = False

    def unary_unary(self, path: str, serialize: Any, deserialize: Any) -> Callable[..., Call]:
        return lambda request, **options: self._begin(
            path, deserialize, serialize(request), options
        )

    unary_stream = unary_unary

    def stream_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any
    ) -> Callable[..., Call]:
        def begin(_requests: None = None, **options: Any) -> Call:
            call = self._begin(path, response_deserializer, None, options)
            call.serialize = request_serializer
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
            if message.data is not None:
                call.take(message.data)
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
        error = None if code is OK else _error(code, details, trailing)
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
        if not self._status.done():
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
            if finish.code is OK:
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
