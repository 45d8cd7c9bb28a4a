"""A client of the chain, over WebSocket: start runs, watch them live, lose nothing on the way.

    async with Client("http://127.0.0.1:8080", token) as client:
        run = await client.start("What is a closure?")
        async for event in run:
            print(event.seq, event.type, event.data)

Connections are made again by themselves, with jitter, and events go on after the last one that was
received. Refusals are the typed errors of `factorychain.errors`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, cast

from factorychain.client.connecting import TokenSource
from factorychain.client.events import CaughtUp, Event, Item, Json, JsonObject, Ready, Reset
from factorychain.client.listening import Listener, Listening
from factorychain.client.runs import Run, Subscription

__all__ = [
    "CaughtUp",
    "Client",
    "Event",
    "Item",
    "Json",
    "JsonObject",
    "Ready",
    "Reset",
    "Run",
    "Subscription",
]

OnBusy = Literal["reject", "enqueue", "interrupt"]

_IDLE_THREADS_MAX = 32


class Client:
    """One user's connection. Use it as an async context manager."""

    def __init__(self, url: str, token: TokenSource, *, give_up_after_s: float = 60.0) -> None:
        """Opens nothing yet.

        Args:
            url: Of the edge, `http://host:port` (or `https`, `ws`, `wss`).
            token: The user's token, or what gives one whenever a new one is needed.
            give_up_after_s: How long to try to connect before everything that waits fails.
        """
        from factorychain.client.wire import Wire  # aiohttp, which most commands do without

        base = url.rstrip("/")
        self._listening = Listening()
        path = "" if base.endswith("/v1/ws") else "/v1/ws"
        self._wire = Wire(f"{base}{path}", token, self._listening, give_up_after_s)

    async def __aenter__(self) -> Self:
        await self._wire.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go. Runs that were started go on. May be called twice."""
        await self._wire.close()

    @property
    def ready(self) -> Ready | None:
        """Who the server says that this is; None while not connected."""
        return self._wire.ready

    @property
    def connections(self) -> int:
        """How often it has connected: more than 1 after a reconnect."""
        return self._wire.connections

    async def cut(self) -> None:
        """Drop the connection, as a network would; it comes back by itself. For tests and demos."""
        await self._wire.cut()

    # --- runs ----------------------------------------------------------------------------------

    async def start(
        self,
        input: str | Mapping[str, Json],
        *,
        agent: str | None = None,
        thread: str | None = None,
        request_id: str | None = None,
        on_busy: OnBusy = "reject",
        context: Sequence[Mapping[str, str]] = (),
        metadata: Mapping[str, Json] | None = None,
        replaces: str | None = None,
    ) -> Run:
        """Start a run; its events come out of the result.

        Args:
            input: The user's text, or an object with `text` or `content`, and `data` if wanted.
            agent: Its name; the operator's default without.
            thread: The conversation to go on with; a new one without.
            request_id: The same again finds the same run; made up without.
            on_busy: What to do if the run cannot start at once: refuse, cancel what the thread was asked
                for first (`interrupt`), or wait for the thread, for a place of the user's or for room
                (`enqueue`). `queue_position` of the run says where it waits; it starts by itself.
            context: Objects with `description` and `value`.
            metadata: At most 4 KiB.
            replaces: The run whose place this one takes (edit or regenerate).

        Raises:
            ThreadBusy, UserEngineLimit, Capacity, AgentNotFound, InvalidField, …: It was refused.
        """
        optional: dict[str, object] = {
            "agent": agent,
            "thread": thread,
            "context": [dict(each) for each in context] or None,
            "metadata": dict(metadata) if metadata is not None else None,
            "replaces": replaces,
        }
        frame = {key: value for key, value in optional.items() if value is not None} | {
            "op": "start",
            "input": {"text": input} if isinstance(input, str) else dict(input),
            "request_id": request_id or secrets.token_hex(16),
            "on_busy": on_busy,
        }
        made: list[Run] = []
        # In the frame's own turn: the run's events come right behind the reply.
        await self._wire.request(
            cast("JsonObject", frame), lambda found: made.append(self._started(found))
        )
        return await self._followed(made[0])

    async def _followed(self, run: Run) -> Run:
        if run.existing and run._was_followed:
            # The thread was delivered already, from further on than this run.
            await self._follow(run.thread)
        return run

    def _started(self, found: JsonObject) -> Run:
        run = Run(self._listening, found, self.cancel, self.respond)
        run._was_followed = self._listening.followed(run.thread)
        self._listening.add(run._listener)
        self._listening.delivers(run.thread, [run._listener], run.after)
        self._drop_idle()
        return run

    async def cancel(self, run: str) -> JsonObject:
        """Cancel a run; answers its record when it has ended."""
        found = await self._wire.request({"op": "cancel", "run": run})
        return cast("JsonObject", found.get("run", {}))

    async def respond(self, run: str, request: str, value: Json) -> Run | None:
        """Answer what an agent has asked.

        Returns:
            The run that goes on, if the one that asked has ended with its requests and this was the last
            answer that it waited for; its events come out of it. Else None: the run that asked goes on,
            or waits for more answers.

        Raises:
            InvalidField: The answer does not fit; the request stays open.
            RequestNotFound, RequestAnswered, RequestClosed, RunNotFound: Nobody waits for it.
            UserEngineLimit, ThreadBusy, …: The next run cannot start now. The answer is kept; respond again.
        """
        frame: JsonObject = {"op": "respond", "run": run, "request": request, "value": value}
        made: list[Run] = []

        def replied(found: JsonObject) -> None:
            if found.get("run") != run:
                made.append(self._started(found))

        await self._wire.request(frame, replied)
        return await self._followed(made[0]) if made else None

    # --- threads -------------------------------------------------------------------------------

    async def subscribe(self, thread: str, *, after: int = 0, epoch: int = 0) -> Subscription:
        """The thread's events after a position, then live.

        Args:
            thread: Its id.
            after: The last seq that you have; 0 for everything.
            epoch: That the seq belongs to; 0 if you don't know.
        """
        listener = Listener(thread, seq=after, epoch=epoch)
        self._listening.add(listener)
        try:
            await self._follow(thread)
        except BaseException:
            self._listening.remove(listener)
            raise
        return Subscription(self._listening, listener)

    async def _follow(self, thread: str) -> None:
        frame, on_result = self._wire.subscription(thread)
        await self._wire.request(frame, on_result)
        self._drop_idle()

    def _drop_idle(self) -> None:
        for thread in self._listening.idle(_IDLE_THREADS_MAX):
            self._wire.send_soon({"op": "unsubscribe", "id": "idle", "thread": thread})

    async def agents(self) -> list[JsonObject]:
        """The agents that can be started, the default first."""
        found = await self._wire.request({"op": "agents"})
        return cast("list[JsonObject]", found.get("agents", []))

    async def threads(self, page_token: str = "") -> JsonObject:
        """A page of the user's threads: `threads`, the one changed last first, `next_page_token`."""
        return await self._wire.request({"op": "threads", "page_token": page_token})

    async def thread(self, thread: str, page_token: str = "") -> JsonObject:
        """One thread: `thread`, `runs` (the oldest first: input, output, usage), `next_page_token`."""
        return await self._wire.request(
            {"op": "thread", "thread": thread, "page_token": page_token}
        )

    async def usage(self) -> JsonObject:
        """The user's limits, and what is used of them."""
        return await self._wire.request({"op": "usage"})

    async def ping(self) -> None:
        """Returns when the server has answered."""
        await self._wire.request({"op": "ping"})
