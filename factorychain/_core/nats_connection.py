"""A connection to NATS that outlives outages, and the requests and subscriptions on it.

Invariant: nothing is sent late. A request made while NATS is away fails at once, one that is under
way when it goes fails at that moment, and what was not yet written then is thrown away, so a
reconnect sends nothing but subscriptions. Core messages published during an outage are lost to this
connection: who needs them reads storage when `on_state` says CONNECTED again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter
from factorychain._core.nats_client import QuickClient
from factorychain._core.nats_endpoint import NatsEndpoint, inbox_prefix
from factorychain._core.nats_reconnecting import FIRST_WAIT_S, Reconnecting
from factorychain._core.nats_requests import Requests
from factorychain._core.nats_subscription import Subscription
from factorychain._core.stored import NatsUnavailable

if TYPE_CHECKING:
    from factorychain._core.settings import NatsSettings

__all__ = ["NatsConnection", "NatsEndpoint", "NatsState", "Subscription"]

log = get_logger(__name__)
_errors = counter("factorychain.nats.errors", "What the NATS client reported, by kind")

# A server that stands still is left after nine seconds at most: well within the outage that runs survive.
_PING_INTERVAL_S = 3
_PINGS_UNANSWERED = 2
_REPEAT_LOG_S = 10.0
_CLOSE_TIMEOUT_S = 2.0
SUBSCRIPTION_MAX_BYTES = 64 * 1024 * 1024


class NatsState(StrEnum):
    """What a connection can do now."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    CLOSED = "closed"


class NatsConnection:
    """One connection of a service; a component (`factorychain._core.component`). Live traffic and requests take separate ones."""

    def __init__(
        self,
        endpoint: NatsEndpoint,
        name: str,
        *,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 30.0,
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.requests = Requests(timeout_s)
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._reconnecting = Reconnecting(time.monotonic)
        self._client: QuickClient | None = None
        self._state = NatsState.CLOSED
        self._stopping = False
        self._listeners: list[Callable[[NatsState], None]] = []
        self._subscriptions: dict[Subscription, None] = {}
        self._refusal: asyncio.Future[None] | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._logged: dict[str, float] = {}

    @classmethod
    def from_settings(cls, settings: NatsSettings, name: str) -> Self:
        endpoint = NatsEndpoint(settings.nats_url, settings.nats_user, settings.nats_password_file)
        return cls(endpoint, name, timeout_s=settings.nats_timeout_s)

    @property
    def nc(self) -> Client:
        """The client below.

        Raises:
            NatsUnavailable: not started, or closed.
        """
        if self._client is None:
            raise NatsUnavailable(f"{self.name}: not started", sent=False)
        return self._client

    @property
    def state(self) -> NatsState:
        return self._state

    @property
    def healthy(self) -> bool:
        return self._state is NatsState.CONNECTED

    def on_state(self, callback: Callable[[NatsState], None]) -> None:
        """Call `callback` with each new state; it must not block or raise."""
        self._listeners.append(callback)

    async def start(self) -> None:
        """Connect.

        Raises:
            NatsUnavailable: nobody answered in time, or the credentials were refused.
        """
        self._stopping = False
        await self._open()

    async def stop(self) -> None:
        self._stopping = True
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        self.requests.fail_all(f"{self.name}: stopped")
        client, self._client = self._client, None
        if client is not None:
            await _close(client)
        self._enter(NatsState.CLOSED)

    async def subscribe(
        self,
        subject: str,
        callback: Callable[[Msg], None],
        *,
        dropped: Callable[[], None] | None = None,
        max_bytes: int = SUBSCRIPTION_MAX_BYTES,
        confirm: bool = False,
    ) -> Subscription:
        """Call `callback` for each message on `subject`, in order.

        `dropped` is called when more than `max_bytes` wait and messages are thrown away. With
        `confirm` the server has the subscription when this returns (one round trip): needed when
        another connection is about to read what was stored before.

        Raises:
            NatsUnavailable: NATS is away; nothing is subscribed.
        """
        subscription = Subscription(subject, callback, dropped)
        try:
            await self._attach(self.nc, subscription, max_bytes)
            if confirm:
                await self.flush()
        except BaseException:
            await subscription.close()
            raise
        self._subscriptions[subscription] = None
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)
        await subscription.close()

    async def flush(self) -> None:
        """Wait until the server has handled everything sent so far.

        Raises:
            NatsUnavailable: NATS is away.
        """
        if not self.healthy:
            raise NatsUnavailable(f"{self.name}: not connected", sent=False)
        try:
            await asyncio.wait_for(self.nc.flush(), self.timeout_s)
        except (NatsError, TimeoutError) as error:
            raise NatsUnavailable(f"{self.name}: no answer to a ping", sent=True) from error

    async def _open(self) -> None:
        client = QuickClient()
        self._client = client
        self._refusal = asyncio.get_running_loop().create_future()
        connecting = asyncio.create_task(self._connect(client))
        try:
            await asyncio.wait(
                {connecting, self._refusal},
                timeout=self._connect_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._refusal.done():
                raise NatsUnavailable(
                    f"{self._endpoint.url} refuses user {self._endpoint.user!r}", sent=False
                )
            if not connecting.done():
                raise NatsUnavailable(f"{self._endpoint.url} does not answer", sent=False)
            await connecting
            await self.requests.open(client)
            for subscription in self._subscriptions:
                await self._attach(client, subscription, SUBSCRIPTION_MAX_BYTES)
        except BaseException:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await _close(client)
            raise
        self._reconnecting.connected()
        self._enter(NatsState.CONNECTED)

    async def _connect(self, client: Client) -> None:
        await client.connect(
            servers=self._endpoint.url.split(","),
            name=self.name,
            user=self._endpoint.user or None,
            password=self._endpoint.password() or None,
            inbox_prefix=inbox_prefix(self._endpoint.user),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            # Of a first connection, which `_open` gives up in time; later ones ask `reconnecting`.
            reconnect_time_wait=FIRST_WAIT_S * random.uniform(0.5, 1.5),  # type: ignore[arg-type]  # passed to asyncio.sleep
            reconnect_to_server_handler=self._reconnecting,
            ping_interval=_PING_INTERVAL_S,
            max_outstanding_pings=_PINGS_UNANSWERED,
            # Publishing fails while NATS is away instead of being kept for later.
            pending_size=0,
            error_cb=self._on_error,
            disconnected_cb=self._for(client, self._on_disconnected),
            reconnected_cb=self._for(client, self._on_reconnected),
            closed_cb=self._for(client, self._on_closed),
        )

    async def _attach(self, client: Client, subscription: Subscription, max_bytes: int) -> None:
        # The client's task for this subscription would inherit the context of whoever happens to
        # subscribe first, and hand one user's context to the callbacks of all.
        subscribing = asyncio.get_running_loop().create_task(
            client.subscribe(
                subscription.subject,
                cb=subscription.deliver,
                pending_bytes_limit=max_bytes,
                pending_msgs_limit=0,
            ),
            context=Context(),
        )
        try:
            subscription.handle = await subscribing
        except NatsError as error:
            raise NatsUnavailable(f"{subscription.subject}: {error}", sent=False) from error

    def _for(self, client: Client, then: Callable[[Client], None]) -> Callable[[], Awaitable[None]]:
        async def called() -> None:
            if client is self._client:
                then(client)

        return called

    def _on_disconnected(self, client: Client) -> None:
        # Requests whose callers are told now that they failed must not be sent on reconnect.
        client._pending.clear()
        client._pending_data_size = 0
        self.requests.fail_all(f"{self.name}: the connection to NATS was lost")
        self._reconnecting.lost()
        self._enter(NatsState.DISCONNECTED)

    def _on_reconnected(self, client: Client) -> None:
        self._reconnecting.connected()
        self._enter(NatsState.CONNECTED)

    def _on_closed(self, client: Client) -> None:
        # The client gives up on protocol errors, for instance "maximum connections exceeded".
        self.requests.fail_all(f"{self.name}: the connection to NATS was closed")
        if not self._stopping and (self._reopening is None or self._reopening.done()):
            self._reopening = asyncio.get_running_loop().create_task(
                self._reopen(), context=Context()
            )

    async def _reopen(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stopping:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(wait_s * 2, self.timeout_s)
            try:
                await self._open()
            except (NatsUnavailable, NatsError, OSError) as error:
                cause = error.what if isinstance(error, NatsUnavailable) else str(error)
                log.warning(
                    "the connection to NATS could not be opened again",
                    connection=self.name,
                    cause=cause,
                )
            else:
                return

    async def _on_error(self, error: Exception) -> None:
        _errors.add(1, {"error.type": type(error).__name__})
        if isinstance(error, SlowConsumerError):
            self._on_slow(error)
            return
        text = f"{type(error).__name__}: {error}"
        if "authorization violation" in text.lower() and self._refusal and not self._refusal.done():
            self._refusal.set_result(None)
        self.requests.refuse(text)
        now = time.monotonic()
        if now - self._logged.get(text, -_REPEAT_LOG_S) >= _REPEAT_LOG_S:
            self._logged = {text: now} if len(self._logged) > 100 else {**self._logged, text: now}
            log.warning("NATS reports an error", connection=self.name, error=text)

    def _on_slow(self, error: SlowConsumerError) -> None:
        log.error("messages from NATS were dropped", connection=self.name, subject=error.subject)
        for subscription in self._subscriptions:
            if subscription.handle is error.sub and subscription.dropped is not None:
                subscription.dropped()

    def _enter(self, state: NatsState) -> None:
        if state is self._state:
            return
        self._state = state
        log.info("the connection to NATS has changed", connection=self.name, state=state.value)
        for listener in self._listeners:
            listener(state)


async def _close(client: Client) -> None:
    with suppress(NatsError, OSError, TimeoutError):
        await asyncio.wait_for(client.close(), _CLOSE_TIMEOUT_S)
