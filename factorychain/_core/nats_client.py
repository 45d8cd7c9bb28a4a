"""The NATS client with a short way for requests and replies.

nats-py hands each message over a queue to a task, and each write to another; of a request that is two
thirds of the CPU time. Here a reply goes straight to whoever takes replies, and all that is published
in one turn of the event loop leaves in one write.

Invariant: what it overrides means what it meant. It depends on the client's insides, which the lock
file pins and the integration tests hold it to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from factorychain._core.optional import without

with without("aiohttp"):  # for NATS over WebSockets
    from nats.aio.client import Client
    from nats.errors import BadSubjectError, MaxPayloadError, OutboundBufferLimitError

_VERSION_LINE = b"NATS/1.0\r\n"
_VERSION_CHARS = len("NATS/1.0")
_LINE_ENDS = str.maketrans("\r\n", "  ")


class Reply(NamedTuple):
    """A message to the inbox."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None


class QuickClient(Client):
    """`nats.aio.client.Client`, for many small requests at once."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Callable[[Reply], None]] = {}
        self._flushing = False

    async def take(self, subject: str, taker: Callable[[Reply], None]) -> None:
        """Call `taker` with each message on `subject` as it is read; it must not block or raise.

        Nothing is queued and so nothing is dropped: only for what was asked for.
        """
        subscription = await self.subscribe(subject, cb=_never)
        self._takers[subscription._id] = taker

    def send_now(
        self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
    ) -> None:
        """Publish at once. The names of headers are the caller's own.

        Raises:
            OutboundBufferLimitError: not connected.
            MaxPayloadError: larger than the server takes.
            BadSubjectError: the subject has white space.
        """
        if not self.is_connected:
            raise OutboundBufferLimitError
        if len(payload) > self._max_payload:
            raise MaxPayloadError
        if len(subject.split(maxsplit=1)) != 1:
            raise BadSubjectError
        self._pending.append(_command(subject, payload, reply, headers))
        self._pending_data_size += len(self._pending[-1])
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        # Empty when the connection was lost in between: nothing is sent late.
        if self._pending and self.is_connected and self._transport is not None:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.write(b"".join(pending))

    # --- overridden --------------------------------------------------------------------------

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        taker = self._takers.get(sid)
        if taker is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            taker(Reply(subject.decode(), data, _parse_headers(headers)))

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return _parse_headers(headers)


async def _never(_message: object) -> None:
    """Stands where the client wants a callback; `_process_msg` comes before it."""


def _command(subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes:
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (
            subject.encode(), reply.encode(), len(payload), payload,
        )  # fmt: skip
    # A line end in a value would be a header, or a command, of somebody else's making.
    lines = "".join(f"{name}: {value.translate(_LINE_ENDS)}\r\n" for name, value in headers.items())
    head = b"%b%b\r\n" % (_VERSION_LINE, lines.encode())
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject.encode(), reply.encode(), len(head), len(head) + len(payload), head, payload,
    )  # fmt: skip


def _parse_headers(raw: bytes | None) -> dict[str, str] | None:
    """Names and values; a status in the first line as `Status` and `Description`."""
    if not raw:
        return None
    first, *lines = raw.decode(errors="replace").split("\r\n")
    found = {}
    status, _, description = first[_VERSION_CHARS:].strip().partition(" ")
    if status.isdigit():
        found["Status"] = status
        if description:
            found["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found or None
