"""What a client reads events from: a run that it started, or a thread that it subscribed to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from factorychain.client.events import Event, Item, Json, JsonObject, integer
from factorychain.client.listening import Listener, Listening
from factorychain.errors import AgentError, ErrorCode, FactoryChainError


class Subscription:
    """The events of a thread. `async for` over it, or over `items()` for the marks between, too."""

    def __init__(self, listening: Listening, listener: Listener) -> None:
        self.thread = listener.thread
        self._listening = listening
        self._listener = listener

    @property
    def position(self) -> tuple[int, int]:
        """Seq and epoch to resume from."""
        return self._listener.seq, self._listener.epoch

    def close(self) -> None:
        """Want no more. May be called twice."""
        self._listening.remove(self._listener)
        self._listener.end(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            item = await self.next_item()
            if isinstance(item, Event):
                return item

    async def next_item(self) -> Item:
        """The next event or mark; raises StopAsyncIteration at the end."""
        try:
            return await self._listener.next()
        except BaseException:
            if self._listener.done:
                self._listening.remove(self._listener)
            raise


class Run(Subscription):
    """A run that was started: `async for` gives its events, the ending last."""

    def __init__(
        self,
        listening: Listening,
        found: JsonObject,
        cancel: Callable[[str], Awaitable[JsonObject]],
        respond: Callable[[str, str, Json], Awaitable[Run | None]],
    ) -> None:
        self.id = str(found.get("run", ""))
        self.epoch = integer(found, "epoch")
        self.after = integer(found, "after")
        """Seq of the thread's last event before the run."""
        self.existing = bool(found.get("existing", False))
        """Whether the same request had started it before."""
        self.queue_position = integer(found, "position")
        """How many of the user's runs wait up to this one: 1 is next; 0: it does not wait."""
        self.ending: Event | None = None
        self._was_followed = False
        thread = str(found.get("thread", ""))
        listener = Listener(thread, run=self.id, seq=self.after, epoch=self.epoch)
        super().__init__(listening, listener)
        self._cancel = cancel
        self._respond = respond

    async def __anext__(self) -> Event:
        event = await super().__anext__()
        if event.type in ("run_queued", "agent_started") or event.is_ending:
            self.queue_position = integer(event.data, "position")
        if event.is_ending:
            self.ending = event
            self._listening.remove(self._listener)
        return event

    async def cancel(self) -> JsonObject:
        """Cancel it; answers its record when it has ended."""
        return await self._cancel(self.id)

    async def respond(self, request: str, value: Json) -> Run | None:
        """Answer what it asks; see `Client.respond`."""
        return await self._respond(self.id, request, value)

    async def result(self) -> Json:
        """What the agent returned. Takes the events that nobody has taken yet.

        Raises:
            AgentError: The run failed.
            FactoryChainError: The run was cancelled (reason RUN_CANCELLED), or the connection is lost.
        """
        if self.ending is None:
            async for _ in self:
                pass
        assert self.ending is not None, "the events of a run stop at its ending"
        return _outcome(self.id, self.ending)


def _outcome(run: str, ending: Event) -> Json:
    data = ending.data
    if ending.type == "agent_completed":
        return data.get("output")
    reason = str(data.get("reason", ""))
    if ending.type == "agent_failed":
        retry_after_s = data.get("retry_after_s")
        raise AgentError(
            str(data.get("message", "")),
            reason=reason,
            retryable=bool(data.get("retryable")),
            retry_after_s=retry_after_s if isinstance(retry_after_s, int | float) else None,
        )
    raise FactoryChainError(
        f"run {run} was cancelled ({reason})", reason="RUN_CANCELLED", code=ErrorCode.CANCELLED
    )
