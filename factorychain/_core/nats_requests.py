"""Requests and their replies over one NATS connection: one inbox, many requests in flight.

Invariant: a request ends: with its replies, at its time-out, or as soon as the connection breaks,
whichever comes first. A reply finds its request by a number that is never used twice, so a late one
finds nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from itertools import count

from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError

from factorychain._core.nats_client import QuickClient, Reply
from factorychain._core.stored import NatsUnavailable, StorageRefused

_NO_RESPONDERS = "503"
_VIOLATION = re.compile(r'violation for publish to "([^"]+)"', re.IGNORECASE)


class _Pending:
    """One request on its way."""

    __slots__ = ("future", "is_last", "replies", "subject", "timer")

    def __init__(
        self,
        subject: str,
        future: asyncio.Future[list[Reply]],
        is_last: Callable[[Reply], bool] | None,
    ) -> None:
        self.subject = subject
        self.future = future
        self.is_last = is_last
        self.replies: list[Reply] = []
        self.timer: asyncio.TimerHandle | None = None


class Requests:
    """The requests of one connection."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._numbers = count(1)
        self._pending: dict[str, _Pending] = {}
        self._prefix = ""
        self._client: QuickClient | None = None

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    async def open(self, client: QuickClient) -> None:
        """Listen for replies on `client`, once per client; it listens again after a reconnect."""
        prefix = client.new_inbox() + "."
        # The inbox is bounded by what is asked for.
        await client.take(prefix + "*", self._on_reply)
        self._prefix = prefix
        self._client = client

    def fail_all(self, what: str) -> None:
        """The connection is gone: nobody waits for what cannot come."""
        for number in list(self._pending):
            self._fail(number, what)

    def refuse(self, violation: str) -> None:
        """The server reported a permission violation: the request that it names gets no reply."""
        named = _VIOLATION.search(violation)
        for pending in self._pending.values():
            # The client has turned the server's message into small letters.
            if named and pending.subject.lower() == named[1].lower() and not pending.future.done():
                pending.future.set_exception(
                    StorageRefused(pending.subject, 0, "this service's NATS user may not do that")
                )

    async def one(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request that has one reply.

        Raises:
            NatsUnavailable: not connected, no responder, or no reply in time.
            StorageRefused: this user may not send it.
        """
        replies = await self._send(subject, payload, headers, None)
        return replies[0]

    async def many(
        self, subject: str, payload: bytes, is_last: Callable[[Reply], bool]
    ) -> list[Reply]:
        """Send a request that has several replies, up to one that `is_last`, which is included.

        Raises:
            NatsUnavailable: not connected, no responder, or not all replies in time.
        """
        return await self._send(subject, payload, None, is_last)

    async def _send(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        is_last: Callable[[Reply], bool] | None,
    ) -> list[Reply]:
        client = self._client
        if client is None or not client.is_connected:
            raise NatsUnavailable(f"{subject}: not connected", sent=False)
        loop = asyncio.get_running_loop()
        number = str(next(self._numbers))
        pending = self._pending[number] = _Pending(subject, loop.create_future(), is_last)
        try:
            _publish(client, subject, payload, self._prefix + number, headers)
            pending.timer = loop.call_later(
                self._timeout_s,
                self._fail,
                number,
                f"{subject}: no answer in {self._timeout_s:g} s",
            )
            return await pending.future
        finally:
            self._pending.pop(number, None)
            if pending.timer is not None:
                pending.timer.cancel()

    def _on_reply(self, msg: Reply) -> None:
        pending = self._pending.get(msg.subject[len(self._prefix) :])
        if pending is None or pending.future.done():
            return
        if not msg.data and msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
            pending.future.set_exception(
                NatsUnavailable(
                    "nobody answers: JetStream is not ready or the stream is missing", sent=False
                )
            )
            return
        pending.replies.append(msg)
        if pending.is_last is None or pending.is_last(msg):
            pending.future.set_result(pending.replies)

    def _fail(self, number: str, what: str) -> None:
        pending = self._pending.get(number)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(NatsUnavailable(what, sent=True))


def _publish(
    client: QuickClient, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
) -> None:
    try:
        client.send_now(subject, payload, reply, headers)
    except (MaxPayloadError, BadSubjectError) as error:
        raise StorageRefused(subject, 0, f"{type(error).__name__}, {len(payload)} bytes") from error
    except NatsError as error:
        raise NatsUnavailable(f"{subject}: {type(error).__name__}", sent=False) from error
