"""Interest in a subject."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription
from nats.errors import Error as NatsError


class Subscription:
    """Interest in a subject, which survives reconnects until `close`."""

    def __init__(
        self, subject: str, callback: Callable[[Msg], None], dropped: Callable[[], None] | None
    ) -> None:
        self.subject = subject
        self.callback = callback
        self.dropped = dropped
        self.closed = False
        self.handle: ClientSubscription | None = None

    async def deliver(self, msg: Msg) -> None:
        if not self.closed:
            self.callback(msg)

    async def close(self) -> None:
        """Stop delivering at once, and tell the server. May be called twice."""
        self.closed = True
        handle, self.handle = self.handle, None
        if handle is not None:
            with suppress(NatsError):
                await handle.unsubscribe()
