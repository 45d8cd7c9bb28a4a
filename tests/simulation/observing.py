"""What must hold, checked while a simulation runs and when it has come to rest.

It reads only what agents' code did and was acknowledged, the log, and what clients were sent. The invariants:

- what a layer acknowledges to agents stands in the log at that moment;
- a client that resumes gets every event of its threads in dense order, once, and what the log has;
- the events of an agent's code stand in the log in its order, without a hole, and those of an
  attempt never after a later attempt's;
- an attempt is begun by agents once;
- an admitted run has exactly one ending, which something explains (`endings`), and nothing after it, and a thread one run at a time;
- agents give up a run of which nothing is confirmed for too long (`attempts`);
- a user's runs whose code was started and which have no ending in the log are never more than the
  limit (code of an attempt that was superseded speaks for the same run, and counts once);
- a run that has begun does not wait any more;
- a run whose engine is gone is adopted by one other;
- nothing of another user reaches a client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import orjson

from factorychain import RunContext
from factorychain._core.event_kinds import ENDINGS
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal, log_subject, thread_key
from factorychain._core.link import RunObserver
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.errors import FactoryChainError
from tests.simulation.attempts import Attempt
from tests.simulation.endings import Endings
from tests.simulation.logged import Logged, events_of
from tests.simulation.nats_server import FakeNats, Stored


@dataclass
class Seen:
    """What one client got of one thread."""

    epoch: int = 0
    events: list[tuple[int, str, str]] = field(default_factory=list)

    def has_ended(self, run: str) -> bool:
        return any(each[1] == run and each[2] in ENDINGS for each in self.events)

    @property
    def last(self) -> int:
        return self.events[-1][0] if self.events else 0


_TAKEOVER_S = 3.5
"""Shorter than an engine's heartbeat lives: before that nobody may take a run from who adopted it."""


class Observer:
    """Hears of everything, and keeps what does not hold in `violations`."""

    def __init__(
        self, nats: FakeNats, limit: int, endings: Endings, note: Callable[[str], None], stop: Callable[[], None]
    ) -> None:  # fmt: skip
        """`stop`: nothing more has to happen, once something did not hold."""
        self.violations: list[str] = []
        self.endings = endings
        self.admitted: dict[str, tuple[Principal, str]] = {}
        self.bodies = 0
        self.answered: dict[tuple[str, str], tuple[Principal, str]] = {}
        """Answers to runs and their requests that were taken from users, who said them in a thread."""
        self.goes_on: set[str] = set()
        """Runs that were begun by an answer to one that had ended."""
        self.again = 0
        """Attempts after the first."""
        self.acknowledged = 0
        self.read = 0
        self._nats = nats
        self._attempts: set[tuple[str, int]] = set()
        self._batches: dict[int, LogBatch] = {}
        self._parsed: dict[int, list[Logged]] = {}
        self._limit = limit
        self._note = note
        self._stop = stop
        self._adoptions: dict[str, tuple[str, float, Callable[[], bool]]] = {}
        self._begun: dict[Principal, dict[str, str]] = {}
        self._kept: dict[tuple[str, str, str], set[int]] = {}
        self._removed: set[str] = set()
        """Runs that kept something in their thread, and were told that it is gone."""

    # --- the log ----------------------------------------------------------------------------

    def log_of(self, principal: Principal, thread: str) -> list[Logged]:
        stream = self._nats.streams.get("EVENTS-0")
        subject = log_subject(1, principal.ukey, thread_key(thread))
        if stream is None:
            return []
        return [each for stored in stream.matching(subject) for each in self._events(stored)]

    def _batch(self, stored: Stored) -> LogBatch:
        found = self._batches.get(stored.seq)
        if found is None:
            found = self._batches[stored.seq] = LogBatch.FromString(stored.data)
        return found

    def _events(self, stored: Stored) -> list[Logged]:
        found = self._parsed.get(stored.seq)
        if found is None:
            found = self._parsed[stored.seq] = list(events_of(self._batch(stored)))
        return found

    def has_ended(self, principal: Principal, thread: str, run: str) -> bool:
        return any(each.run == run and each.ends for each in self.log_of(principal, thread))

    # --- agents -----------------------------------------------------------------------------

    @contextmanager
    def body(self, ctx: RunContext) -> Generator[None, None, None]:
        """An agent's code runs."""
        principal = Principal(ctx.tenant, ctx.user)
        self.bodies += 1
        self.again += ctx.attempt > 1
        attempt = ctx.run_id, ctx.attempt
        if attempt in self._attempts:
            self.violated(f"attempt {ctx.attempt} of {ctx.run_id} began twice")
        self._attempts.add(attempt)
        self._note(f"agent {ctx.user} {ctx.run_id[:8]} attempt {ctx.attempt}")
        begun = self._begun.setdefault(principal, {})
        for run, thread in list(begun.items()):
            if self.has_ended(principal, thread, run):
                del begun[run]
        if not self.has_ended(principal, ctx.thread, ctx.run_id):
            begun[ctx.run_id] = ctx.thread
        if len(begun) > self._limit:
            self.violated(f"{len(begun)} runs of {ctx.user} at once: {[*begun]}")
        try:
            yield
        except FactoryChainError:  # what the chain tells agents' code
            raise
        except Exception as error:
            self.violated(f"an agent's code was not let work: {error!r}")
            raise

    async def keeps(self, ctx: RunContext) -> None:
        """An agent counts one more in its thread: what was said to be kept before is not forgotten."""
        told = self._kept.setdefault((ctx.tenant, ctx.user, ctx.thread), {0})
        before = max(told)  # a stalled agent hears late, and others have gone on meanwhile
        count = await ctx.state.update(_one_more, default=0)
        if count <= before or count in told:
            self.violated(f"{ctx.thread} of {ctx.user} kept {before} of {told}, now {count}")
        told.add(count)

    async def forgets(self, ctx: RunContext) -> None:
        """An agent keeps something, and then nothing any more: no run of its thread finds it again."""
        if (found := await ctx.state.get()) in self._removed:
            self.violated(f"{ctx.thread} of {ctx.user} still has what {found} removed")
        await ctx.state.set(ctx.run_id)
        await ctx.state.set(None)
        self._removed.add(ctx.run_id)

    def resumed(self, ctx: RunContext, canary: str) -> None:
        """An agent goes on with what its user has answered."""
        self.goes_on.add(ctx.run_id)
        if [*(ctx.resume or {}).values()] != [canary]:
            self.violated(f"{ctx.user} was taken to have answered {ctx.resume}")

    def acknowledging(
        self, ctx: UserExecutionContext, attempt: Attempt, inner: RunObserver | None
    ) -> RunObserver:
        """Around what hears the acknowledgements of a run on the agents' link."""
        return cast("RunObserver", _Acknowledged(self, ctx, attempt, inner))

    def is_acknowledged(self, ctx: UserExecutionContext, run_seq: int) -> None:
        """Agents were told that everything up to `run_seq` is durable."""
        self.acknowledged += 1
        stream = self._nats.streams["EVENTS-0"]
        subject = log_subject(1, ctx.principal.ukey, thread_key(ctx.thread))
        batches = [self._batch(each) for each in stream.matching(subject)]
        mine = [each for each in batches if each.run == ctx.run]
        if any(each.ends for each in mine) or run_seq == 0:
            return
        durable = max(
            (each.last_run_seq for each in mine if each.attempt == ctx.attempt), default=0
        )
        if durable < run_seq:
            self.violated(f"{ctx.run} acknowledged {run_seq}, the log has {durable}")

    # --- engines ----------------------------------------------------------------------------

    def adopted(self, run: str, by: str, at_s: float, still: Callable[[], bool]) -> None:
        """An engine looks after a run of one that is gone; `still`: whether it does so now."""
        before = self._adoptions.get(run)
        self._adoptions[run] = by, at_s, still
        if before is None or before[0] == by or at_s - before[1] > _TAKEOVER_S:
            return
        if before[2]():
            self.violated(f"{run} was adopted by {before[0]} and by {by}")

    # --- clients ----------------------------------------------------------------------------

    def frame(self, principal: Principal, text: str) -> None:
        """A client was sent this."""
        for part in text.split("canary-")[1:]:
            if not part.startswith(principal.user):
                self.violated(f"{principal.user} was sent canary-{part[:8]}")

    def events(self, seen: Seen, thread: str, frame: dict[str, object]) -> None:
        """A client got events of a thread."""
        events = frame["events"]
        assert isinstance(events, list), "a list of events"
        if frame["epoch"] != seen.epoch and seen.events:
            self.violated(f"{thread}: epoch {seen.epoch} became {frame['epoch']}")
        seen.epoch = int(str(frame["epoch"]))
        for event in events:
            self.read += 1
            if event["seq"] != seen.last + 1:
                self.violated(f"{thread}: event {event['seq']} after {seen.last}")
            seen.events.append((event["seq"], event["run"], event["type"]))

    # --- at the end -------------------------------------------------------------------------

    def check_admitted(self) -> None:
        """Every run that was admitted has one ending."""
        for run, (principal, thread) in self.admitted.items():
            endings = [e.kind for e in self.log_of(principal, thread) if e.run == run and e.ends]
            if len(endings) != 1:
                self.violated(f"{run} of {principal.user} in {thread} has endings {endings}")

    def check_answers(self) -> None:
        """An answer that was taken reaches its agent, unless the agents that had it are lost."""
        for (run, request), (principal, thread) in self.answered.items():
            own = [each for each in self.log_of(principal, thread) if each.run == run]
            received = [each.event.input_received for each in own]
            heard = any(r.request == request and not r.HasField("closed") for r in received)
            if not heard and own[-1].kind == "agent_completed" and own[-1].attempt == 1:
                self.violated(f"{run} of {principal.user} never heard the answer to {request}")

    def check_thread(self, principal: Principal, thread: str, seen: Seen) -> None:
        """The thread's log by itself, and against what a client has."""
        logged = self.log_of(principal, thread)
        if [each.seq for each in logged] != list(range(1, len(logged) + 1)):
            self.violated(f"{thread}: seqs {[each.seq for each in logged]}")
        self._check_runs(thread, logged)
        for wrong in self.endings.wrong(logged):
            self.violated(f"{thread}: {wrong}")
        own = [(each.seq, each.run, each.kind) for each in logged]
        if seen.events != own:
            self.violated(f"{thread}: a client has {len(seen.events)} of {len(own)} events")

    def _check_runs(self, thread: str, logged: list[Logged]) -> None:
        attempts: Counter[str] = Counter()
        steps: dict[tuple[str, int], int] = {}
        ended: list[str] = []
        for each in logged:
            if each.kind == "run_queued" and attempts[each.run]:
                self.violated(f"{thread}: {each.run} waits after it has begun")
            if each.run in ended:
                self.violated(f"{thread}: {each.kind} of {each.run} after its ending")
            if each.attempt < attempts[each.run]:
                self.violated(f"{thread}: attempt {each.attempt} of {each.run} after a later one")
            if each.kind != "run_queued":
                attempts[each.run] = each.attempt
            if each.kind == "custom":
                number = orjson.loads(each.event.custom.data_json)["n"]
                expected = steps.get((each.run, each.attempt), 0)
                if number != expected:
                    self.violated(f"{thread}: step {number} of {each.run}, not {expected}")
                steps[each.run, each.attempt] = number + 1
            if each.ends:
                ended.append(each.run)

    def violated(self, what: str) -> None:
        """Kept instead of raised: it may be found inside a service, which would handle it."""
        self._note(f"VIOLATED {what}")
        self.violations.append(what)
        self._stop()


def _one_more(kept: int) -> int:
    return kept + 1


class _Acknowledged:
    """A `RunObserver` that lets the observer hear, too."""

    def __init__(
        self,
        observer: Observer,
        ctx: UserExecutionContext,
        attempt: Attempt,
        inner: RunObserver | None,
    ) -> None:
        self._observer = observer
        self._ctx = ctx
        self._attempt = attempt
        self._inner = inner

    def opened(self, durable_run_seq: int) -> None:
        self._attempt.confirmed(durable_run_seq)
        if self._inner is not None:
            self._inner.opened(durable_run_seq)

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        self._attempt.confirmed(durable_run_seq)
        self._observer.is_acknowledged(self._ctx, durable_run_seq)
        if self._inner is not None:
            self._inner.acknowledged(durable_run_seq, ended)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


_current: list[Observer] = []


def current() -> Observer:
    """That of the simulation that runs; agents' code has no other way to it."""
    return _current[-1]


def begin(observer: Observer) -> None:
    _current[:] = [observer]
