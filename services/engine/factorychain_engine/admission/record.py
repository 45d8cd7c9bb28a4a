"""Who may run: the record of one user and every change that is made to its places.

Invariant: a record never holds more active runs than the limit, never two of one thread and never
one run twice. Each function takes a record and returns the next one or says why not; the record is
stored by one compare-and-set, so the invariant holds over any number of engines. A place is freed
only by `release`, which is called for a run whose ending is in the log or that never reached
agents: never by time. The next attempt of a run is begun once, by an owner that nobody has taken the place from since.
Whoever waits for a place (`queueing`) has it before one who comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from factorychain.errors import InvalidField
from factorychain_engine.admission.queued_run import QueuedRun


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """One place that is taken: everything that any engine needs to end its run."""

    run: str
    thread: str
    agent: str
    request_hash: str
    """Of the request's body: the same request id with another body is refused."""
    owner: str
    """The engine process that supervises the run."""
    admitted_at_s: float
    deadline_s: float
    base: int
    """Stream sequence of the thread's last batch at admission; 0: none."""
    base_seq: int
    base_epoch: int
    attempt: int = 1
    adoptions: int = 0
    """How often it has passed to another owner, so that one who has it again knows that it was away."""
    agents_address: str = ""
    """The agents replica that accepted the run; empty until it has."""
    agents_boot: str = ""
    trace: str = ""
    replaces: str = ""
    attempts: int = 1
    """How often the run may be started in all: more than once only if its agent is `repeat_safe`."""
    has_context: bool = False
    """Whether its start came with context, which a later attempt needs, too."""
    plan: str = ""
    """The plan that the user's token named; its limits are looked up when they are needed."""
    queued_at_s: float = 0.0
    """When it was queued; 0: it never was. With it, where its thread's log ended then."""
    queued_seq: int = 0
    queued_epoch: int = 0
    kept: str = ""
    """Names what the queue has kept of its start."""
    cancel: str = ""
    """Why it is to end, whoever looks after it; empty: it is not."""

    @property
    def asked_at_s(self) -> float:
        """When the run was admitted, be it to the queue."""
        return self.queued_at_s or self.admitted_at_s

    @property
    def after(self) -> int:
        """Seq of the thread's last event before the run."""
        return self.queued_seq if self.queued_at_s else self.base_seq

    @property
    def epoch(self) -> int:
        """Epoch of the numbering in which `after` counts."""
        return self.queued_epoch if self.queued_at_s else self.base_epoch


@dataclass(frozen=True, slots=True)
class Totals:
    """What the user's ended runs consumed; counted when a place is freed, so exactly once a run."""

    runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0

    def plus(self, other: Totals) -> Totals:
        return Totals(
            self.runs + other.runs,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
        )


NOTHING_USED = Totals()


@dataclass(frozen=True, slots=True)
class UserRecord:
    """The admission state of one user."""

    tenant: str
    user: str
    active: tuple[ActiveRun, ...] = ()
    totals: Totals = field(default=NOTHING_USED)
    queue: tuple[QueuedRun, ...] = ()
    """The runs that wait, the longest waiting first."""
    queue_owner: str = ""
    """The engine process that looks after the queue: the one that changed it last."""

    def find(self, run: str) -> ActiveRun | None:
        return next((each for each in self.active if each.run == run), None)

    def has(self, run: str) -> bool:
        """Whether the run is active or waits."""
        return self.find(run) is not None or self.waiting(run) is not None

    def place(self, entry: ActiveRun) -> ActiveRun | None:
        """The same place, as it is now. Its run may have another: a repeated start takes one for the
        moment in which it is looked whether the run is over.
        """
        found = self.find(entry.run)
        same = found is not None and found.admitted_at_s == entry.admitted_at_s
        return found if same else None

    def in_thread(self, thread: str) -> ActiveRun | None:
        return next((each for each in self.active if each.thread == thread), None)

    def waiting(self, run: str) -> QueuedRun | None:
        return next((each for each in self.queue if each.run == run), None)

    def waiting_in(self, thread: str) -> tuple[QueuedRun, ...]:
        """Those that wait for this thread, and are to start."""
        return tuple(each for each in self.queue if each.thread == thread and not each.ending)

    def position(self, run: str) -> int:
        """How many wait up to this one: 1 is next; 0: it does not wait to start."""
        waiting = [each.run for each in self.queue if not each.ending]
        return waiting.index(run) + 1 if run in waiting else 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """There is a place."""

    before: UserRecord

    def record(self, entry: ActiveRun) -> UserRecord:
        """What to store: with the place taken by `entry`, which may know more than when it was decided."""
        return replace(self.before, active=(*self.before.active, entry))


@dataclass(frozen=True, slots=True)
class AlreadyActive:
    """The same request was admitted before."""

    entry: ActiveRun


@dataclass(frozen=True, slots=True)
class AlreadyQueued:
    """The same request was queued before."""

    entry: QueuedRun


@dataclass(frozen=True, slots=True)
class Busy:
    """The thread already has an active run."""

    holder: ActiveRun


@dataclass(frozen=True, slots=True)
class Behind:
    """The thread has no active run, but others wait for it."""

    waiting: tuple[QueuedRun, ...]


@dataclass(frozen=True, slots=True)
class Full:
    """The user is at the limit."""

    holders: tuple[ActiveRun, ...]


Decision = Admitted | AlreadyActive | AlreadyQueued | Busy | Behind | Full


def admit(record: UserRecord, wanted: ActiveRun, max_active: int) -> Decision:
    """Decide on one start.

    Raises:
        InvalidField: `wanted` is active or waits already, with another body.
    """
    before = _before(record, wanted)
    if before is not None:
        return before
    holder = record.in_thread(wanted.thread)
    if holder is not None:
        return Busy(holder)
    waiting = record.waiting_in(wanted.thread)
    if waiting:
        return Behind(waiting)
    if len(record.active) + len(startable(record, lambda _: max_active)) >= max_active:
        return Full(record.active)
    return Admitted(record)


def _before(record: UserRecord, wanted: ActiveRun) -> AlreadyActive | AlreadyQueued | None:
    active = record.find(wanted.run)
    if active is not None:
        check_same_request(active.request_hash, wanted.request_hash)
        return AlreadyActive(active)
    queued = record.waiting(wanted.run)
    if queued is not None:
        check_same_request(queued.request_hash, wanted.request_hash)
        return AlreadyQueued(queued)
    return None


def startable(record: UserRecord, limit_of: Callable[[QueuedRun], int]) -> list[QueuedRun]:
    """Those of the queue for which there is a place now, in the order in which they get it.

    The first of each thread, the longest waiting first: one whose thread is busy holds up nobody but
    those behind it in that thread.
    """
    found: list[QueuedRun] = []
    threads = {each.thread for each in record.active}
    for each in record.queue:
        if each.ending or each.thread in threads:
            continue
        threads.add(each.thread)
        if len(record.active) + len(found) < limit_of(each):
            found.append(each)
    return found


def check_same_request(known_hash: str, request_hash: str) -> None:
    """One request id stands for one body.

    Raises:
        InvalidField: it does not.
    """
    if known_hash != request_hash:
        raise InvalidField(
            "request_id",
            "was used for another start with a different body; use a new one, or repeat the same body",
        )


def release(record: UserRecord, entry: ActiveRun, used: Totals = NOTHING_USED) -> UserRecord:
    """Free a place; nothing changes when it is free, so that releasing twice counts once."""
    if record.place(entry) is None:
        return record
    rest = tuple(each for each in record.active if each.run != entry.run)
    return replace(record, active=rest, totals=record.totals.plus(used))


def accepted(record: UserRecord, entry: ActiveRun, address: str, boot: str) -> UserRecord:
    """Note which agents replica accepted the run, so that every engine can reach it."""
    found = record.place(entry)
    if found is None:
        return record
    return _with(record, replace(found, agents_address=address, agents_boot=boot))


def to_cancel(record: UserRecord, entry: ActiveRun, reason: str) -> UserRecord:
    """Note that a run is to end; the first reason stays."""
    found = record.place(entry)
    if found is None or found.cancel:
        return record
    return _with(record, replace(found, cancel=reason))


def next_attempt(record: UserRecord, entry: ActiveRun, deadline_s: float) -> UserRecord:
    """Begin the attempt after `entry`'s, which may live until `deadline_s`; nothing changes if that was
    done before, if the place has had another owner since, or if the run is to end.
    """
    found = _kept(record, entry, entry.attempt)
    if found is None or found.cancel:
        return record
    again = replace(
        found, attempt=entry.attempt + 1, deadline_s=deadline_s, agents_address="", agents_boot=""
    )
    return _with(record, again)


def begun(record: UserRecord, entry: ActiveRun) -> ActiveRun | None:
    """The attempt after `entry`'s, if whoever looked after `entry` has begun it: nobody else hands it over."""
    return _kept(record, entry, entry.attempt + 1)


def stopped(record: UserRecord, entry: ActiveRun) -> ActiveRun | None:
    """The attempt of `entry`, if there is no other after it because the run is to end."""
    found = _kept(record, entry, entry.attempt)
    return found if found is not None and found.cancel else None


def _kept(record: UserRecord, entry: ActiveRun, attempt: int) -> ActiveRun | None:
    """The place at `attempt`, unless it was adopted since `entry` was read, be it back again by now."""
    found = record.place(entry)
    if found is None or (found.owner, found.adoptions) != (entry.owner, entry.adoptions):
        return None
    return found if found.attempt == attempt else None


def adopt(record: UserRecord, gone: Collection[str], new_owner: str) -> UserRecord:
    """Move what engines that are gone looked after to `new_owner`: places, and the queue."""
    active = tuple(
        replace(each, owner=new_owner, adoptions=each.adoptions + 1) if each.owner in gone else each
        for each in record.active
    )
    queue_owner = record.queue_owner
    if record.queue and queue_owner in gone:
        queue_owner = new_owner
    if (active, queue_owner) == (record.active, record.queue_owner):
        return record
    return replace(record, active=active, queue_owner=queue_owner)


def _with(record: UserRecord, entry: ActiveRun) -> UserRecord:
    active = tuple(entry if each.run == entry.run else each for each in record.active)
    return record if active == record.active else replace(record, active=active)
