"""The fake server on a connection, and the client that `NatsConnection` has in place of nats-py's.

Invariant: a connection keeps order in both directions; when it breaks, requests under way stay
unanswered though they may have been carried out, and the client comes back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, NamedTuple, Protocol

from nats.errors import OutboundBufferLimitError

from factorychain._core.nats_client import Reply
from tests.simulation.nats_server import Answer, FakeNats, Headers, is_wild, matcher

_inboxes = count(1)


class Interests:
    """What a connection wants to hear."""

    def __init__(self) -> None:
        self._patterns: dict[int, str] = {}
        # Nearly all are of one of these two kinds, which are found without a look at the others.
        self._at: dict[str, list[int]] = {}
        """Those in a subject, and those in whatever has one token more (`*`), by what is before that."""
        self._others: dict[int, Callable[[str], object]] = {}

    def add(self, number: int, pattern: str) -> None:
        self._patterns[number] = pattern
        at = _but_last(pattern)
        if is_wild(at):
            self._others[number] = matcher(pattern)
        else:
            self._at.setdefault(at, []).append(number)

    def remove(self, number: int) -> None:
        pattern = self._patterns.pop(number, None)
        if pattern is not None and self._others.pop(number, None) is None:
            self._at[_but_last(pattern)].remove(number)

    def in_(self, subject: str) -> list[int]:
        """The subscriptions that hear of it, the oldest first."""
        before = subject[: subject.rfind(".") + 1]
        found = [*self._at.get(before, ()), *self._at.get(subject, ())]
        if self._others:
            found += [number for number, concerns in self._others.items() if concerns(subject)]
        return sorted(found) if len(found) > 1 else found


def _but_last(pattern: str) -> str:
    """What is before the last token if that is `*`; else all of it."""
    return pattern[:-1] if pattern.endswith(".*") else pattern


class Wire(Protocol):
    """One end of a connection (`network.End`)."""

    on_message: Callable[[Any], None]
    on_lost: Callable[[], None]

    def send(self, message: object) -> None: ...

    def close(self) -> None: ...


class Sub(NamedTuple):
    """Interest in a pattern."""

    number: int
    pattern: str


class Unsub(NamedTuple):
    """No more interest."""

    number: int


class Pub(NamedTuple):
    """A request."""

    subject: str
    data: bytes
    reply: str
    headers: Headers


class Ping(NamedTuple):
    """Answered by the same."""

    number: int


class Delivered(NamedTuple):
    """A message for a subscription."""

    number: int
    reply: Reply


class Server:
    """Serves connections: what is lost on the way is decided by chance, as `lose_*` say."""

    def __init__(self, nats: FakeNats, random: Random) -> None:
        self.nats = nats
        self.lose_replies = 0.0
        self.lose_live = 0.0
        self.twice_live = 0.0
        self.behind_s = 0.0
        """How far a server of a cluster may be behind its leader."""
        self._random = random
        self._sessions: dict[Wire, Interests] = {}

    def accept(self, wire: Wire) -> None:
        interests = Interests()
        self._sessions[wire] = interests
        wire.on_message = lambda message: self._take(wire, interests, message)
        wire.on_lost = lambda: self._forget(wire)

    def _forget(self, wire: Wire) -> None:
        self._sessions.pop(wire, None)

    def _take(self, wire: Wire, interests: Interests, message: object) -> None:
        if isinstance(message, Pub):
            self._serve(wire, interests, message)
        elif isinstance(message, Sub):
            interests.add(message.number, message.pattern)
        elif isinstance(message, Unsub):
            interests.remove(message.number)
        elif isinstance(message, Ping):
            wire.send(message)

    def _serve(self, wire: Wire, interests: Interests, pub: Pub) -> None:
        behind_s = self._random.uniform(0, self.behind_s) if self.behind_s else 0.0
        replies, live = self.nats.handle(pub.subject, pub.data, pub.headers, behind_s)
        if not (self.lose_replies and self._happens(self.lose_replies)):
            for reply in replies:
                _deliver(wire, interests, pub.reply, reply)
        if live is not None:
            for each, theirs in list(self._sessions.items()):
                if not self._happens(self.lose_live):
                    _deliver(each, theirs, live.subject, live)
                if self._happens(self.twice_live):
                    _deliver(each, theirs, live.subject, live)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability


def _deliver(wire: Wire, interests: Interests, subject: str, answer: Answer) -> None:
    for number in interests.in_(subject):
        wire.send(Delivered(number, Reply(subject, answer.data, answer.headers)))


class FakeClient:
    """What `NatsConnection` and `Requests` use of `QuickClient`."""

    def __init__(self, dial: Callable[[], Wire | None]) -> None:
        self._dial = dial
        self._wire: Wire | None = None
        self._numbers = count(1)
        self._interests: dict[int, tuple[str, Callable[[Reply], None]]] = {}
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._options: dict[str, Any] = {}
        self._inbox = ""
        self._closed = False
        # The real one's, which `NatsConnection` empties when the connection is lost.
        self._pending: list[bytes] = []
        self._pending_data_size = 0

    @property
    def is_connected(self) -> bool:
        return self._wire is not None

    async def connect(self, **options: Any) -> None:
        self._options = options
        self._inbox = options["inbox_prefix"]
        await self._dial_until_it_works()

    def new_inbox(self) -> str:
        return f"{self._inbox}.{next(_inboxes)}"

    async def flush(self) -> None:
        number = next(self._numbers)
        self._pings[number] = asyncio.get_running_loop().create_future()
        self._send(Ping(number))
        await self._pings[number]

    async def close(self) -> None:
        self._closed = True
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    async def take(self, subject: str, taker: Callable[[Reply], None]) -> None:
        self._listen(subject, taker)

    async def subscribe(
        self, subject: str, cb: Callable[[Reply], Awaitable[None]], **_: object
    ) -> FakeSubscription:
        return FakeSubscription(self, self._listen(subject, lambda reply: _finish(cb(reply))))

    def send_now(self, subject: str, payload: bytes, reply: str, headers: Headers | None) -> None:
        if self._wire is None:
            raise OutboundBufferLimitError
        self._send(Pub(subject, payload, reply, dict(headers or {})))

    def forget(self, number: int) -> None:
        self._interests.pop(number, None)
        self._send(Unsub(number))

    def _listen(self, subject: str, taker: Callable[[Reply], None]) -> int:
        number = next(self._numbers)
        self._interests[number] = (subject, taker)
        self._send(Sub(number, subject))
        return number

    def _send(self, message: object) -> None:
        if self._wire is not None:
            self._wire.send(message)

    async def _dial_until_it_works(self) -> None:
        while (wire := self._dial()) is None:  # noqa: ASYNC110 - as the real client does
            await asyncio.sleep(self._options["reconnect_time_wait"])
        if self._closed:
            wire.close()
            return
        self._wire = wire
        wire.on_message, wire.on_lost = self._on_message, self._on_lost
        for number, (subject, _) in self._interests.items():
            self._send(Sub(number, subject))
        await self.flush()

    def _on_message(self, message: object) -> None:
        if isinstance(message, Delivered):
            interest = self._interests.get(message.number)
            if interest is not None:
                interest[1](message.reply)
        elif isinstance(message, Ping):
            waiting = self._pings.pop(message.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _on_lost(self) -> None:
        self._wire = None
        for waiting in self._pings.values():
            if not waiting.done():
                waiting.set_exception(OutboundBufferLimitError())
        self._pings.clear()
        if not self._closed:
            self._returning = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        await self._options["disconnected_cb"]()
        while not self._closed:
            try:
                await self._dial_until_it_works()
            except OutboundBufferLimitError:  # lost again meanwhile, which began this anew
                return
            if self._wire is not None:
                await self._options["reconnected_cb"]()
            return


@dataclass(frozen=True, slots=True)
class FakeSubscription:
    """What `subscribe` returns."""

    client: FakeClient
    number: int

    async def unsubscribe(self) -> None:
        self.client.forget(self.number)


def _finish(coro: Awaitable[None]) -> None:
    """`Subscription.deliver` waits for nothing."""
    try:
        coro.__await__().__next__()
    except StopIteration:
        return
    raise AssertionError("a callback of a subscription waited for something")
