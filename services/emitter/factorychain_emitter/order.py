"""The legal order of a run: `run_queued* (agent_started …)? ending`.

Invariants: nothing comes before the beginning or after the ending; a call's id is used once, is
completed once, and no call is open when the run has ended; likewise a request for the user's input, which
is answered or closed once.
"""

from __future__ import annotations

from collections.abc import Iterable

from factorychain._core.event_kinds import ENDINGS, ENGINE_LIFECYCLE
from factorychain.types.v1.event_pb2 import Event
from factorychain_emitter.rejection import Rejected

CALLS_MAX = 10_000
"""Calls of one run: their ids are kept, so that none is used twice."""

REQUESTS_MAX = 2_000
"""Requests of one run, likewise."""

OPEN_REQUESTS_MAX = 64
"""Requests at once."""

OPEN_CALLS_MAX = 256
"""Calls at once: each is closed by an event of its own if the run ends first."""


class RunOrder:
    """Where a run stands. `take` moves on, or raises and stays."""

    def __init__(
        self,
        *,
        lifecycle: bool,
        started: bool = False,
        open_calls: Iterable[str] = (),
        open_requests: Iterable[str] = (),
    ) -> None:
        """`started` and what is open: where a run stands that was opened in its middle."""
        self._lifecycle = lifecycle
        self._started = started
        self._ended = False
        # Tool by call, in the order in which they began; "" where the beginning was not seen.
        self._open = dict.fromkeys(open_calls, "")
        self._calls = set(self._open)
        self._open_requests = dict.fromkeys(open_requests)
        self._requests = set(self._open_requests)

    def assume_started(self) -> None:
        """The run goes on from a place whose past is in the log and was not seen here."""
        self._started = True

    @property
    def has_begun(self) -> bool:
        """Whether there is anything that could be completed; what the engine says needs no beginning."""
        return self._started or self._lifecycle

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def open_calls(self) -> dict[str, str]:
        """Calls that have begun and not ended, with their tools."""
        return self._open

    @property
    def open_requests(self) -> list[str]:
        """Requests that were neither answered nor closed."""
        return list(self._open_requests)

    def take(self, kind: str, event: Event) -> None:
        """Takes the next event; raises `Rejected` if it may not come here."""
        if self._ended:
            raise Rejected("AFTER_ENDING", "the run has ended; nothing can follow its ending")
        if self._lifecycle:
            self._take_lifecycle(kind)
        elif kind == "run_queued":
            raise Rejected("NOT_ALLOWED", "only the engine queues a run")
        elif kind == "agent_started":
            self._start()
        elif not self._started and kind not in ENDINGS:
            raise Rejected("NOT_STARTED", "agent_started comes first")
        elif kind == "tool_executing":
            self._begin(event.tool_executing.call, event.tool_executing.tool)
        elif kind == "tool_completed":
            self._complete(event.tool_completed.call, event.tool_completed.tool)
        elif kind == "input_requested":
            self._ask(event.input_requested.request)
        elif kind == "input_received":
            self._settle(event.input_received.request)
        elif kind == "tool_progress" and event.tool_progress.call not in self._open:
            raise Rejected("CALL_NOT_OPEN", "progress belongs to a call that is executing")
        if kind in ENDINGS:
            self._ended = True

    def _take_lifecycle(self, kind: str) -> None:
        if kind not in ENGINE_LIFECYCLE:
            allowed = ", ".join(sorted(ENGINE_LIFECYCLE))
            raise Rejected("NOT_ALLOWED", f"a lifecycle token may say {allowed} only")

    def _start(self) -> None:
        if self._started:
            raise Rejected("ALREADY_STARTED", "an attempt begins once")
        self._started = True

    def _begin(self, call: str, tool: str) -> None:
        if call in self._calls:
            raise Rejected("CALL_NOT_UNIQUE", "every call of a run needs an id of its own")
        if len(self._open) >= OPEN_CALLS_MAX or len(self._calls) >= CALLS_MAX:
            raise Rejected(
                "TOO_MANY_CALLS",
                f"a run makes at most {CALLS_MAX} calls, {OPEN_CALLS_MAX} of them at once",
            )
        self._calls.add(call)
        self._open[call] = tool

    def _complete(self, call: str, tool: str) -> None:
        begun = self._open.get(call)
        if begun is None:
            raise Rejected("CALL_NOT_OPEN", "tool_completed needs the tool_executing of its call")
        if begun and begun != tool:
            raise Rejected("CALL_MISMATCH", "the call was begun for another tool")
        del self._open[call]

    def _ask(self, request: str) -> None:
        if request in self._requests:
            raise Rejected("REQUEST_NOT_UNIQUE", "every request of a run needs an id of its own")
        if len(self._open_requests) >= OPEN_REQUESTS_MAX or len(self._requests) >= REQUESTS_MAX:
            raise Rejected(
                "TOO_MANY_REQUESTS",
                f"a run asks at most {REQUESTS_MAX} times, {OPEN_REQUESTS_MAX} of them at once",
            )
        self._requests.add(request)
        self._open_requests[request] = None

    def _settle(self, request: str) -> None:
        if request not in self._open_requests:
            raise Rejected(
                "REQUEST_NOT_OPEN", "input_received needs the input_requested it answers"
            )
        del self._open_requests[request]
