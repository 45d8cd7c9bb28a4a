"""What a handler sees of a carried call in the place of gRPC's own context.

Invariant: it has what handlers and what stands around them ask for, and nothing that says who the peer
is: a carried call is what its own credential says.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Never

import grpc

from factorychain._core.status import DETAILS_KEY
from factorychain.types.v1.calls_pb2 import CallBegin


class Aborted(grpc.aio.AbortError):
    """The handler has ended its call with a status."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details


class CarriedContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of one carried call."""

    def __init__(self, begin: CallBegin, send: Callable[[object], Awaitable[None]]) -> None:
        self._metadata = tuple(begin.metadata.items())
        left_s = begin.timeout_ms / 1000
        self._deadline_s = time.monotonic() + left_s if left_s else None
        self._send = send

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> Any:
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    async def write(self, message: Any) -> None:
        await self._send(message)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> Never:
        status = next((value for key, value in trailing_metadata if key == DETAILS_KEY), b"")
        raise Aborted(code, details, status if isinstance(status, bytes) else b"")

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    # --- what no handler of this chain asks for ---------------------------------------------

    async def read(self) -> Any:
        raise grpc.aio.UsageError("a carried call has one request")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        raise grpc.aio.UsageError("a carried call has no initial metadata")

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        raise grpc.aio.UsageError("a carried call has no trailing metadata but a status")

    def set_code(self, code: grpc.StatusCode) -> None:
        raise grpc.aio.UsageError("abort the call")

    def set_details(self, details: str) -> None:
        raise grpc.aio.UsageError("abort the call")

    def set_compression(self, compression: grpc.Compression) -> None:
        """The stream's own."""

    def disable_next_message_compression(self) -> None:
        """The stream's own."""

    def peer(self) -> str:
        return "carried"

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def auth_context(self) -> Any:
        return {}
