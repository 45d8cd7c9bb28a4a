"""Starts runs and looks after them: one task a run, in a context of its own.

Invariant: from the moment in which a place may have been taken, a task of the engine's own holds it.
Whoever asked for the run only waits for that task's answer, so a call that is cancelled at any point
leaves a run that was never admitted, or one that goes on and is looked after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger, log_context
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import counter, record_creation, span, up_down_counter
from factorychain.agents.v1.agents_pb2 import ExecuteRequest
from factorychain.errors import Capacity, ChainDegraded, FactoryChainError
from factorychain.types.v1.run_pb2 import Run, RunState
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.agents.layer import NotAccepted
from factorychain_engine.places.factory import ExecutionEngineFactory, Place
from factorychain_engine.places.started import AlreadyStarted, Enqueued, Started, Taken
from factorychain_engine.places.starting import Starting
from factorychain_engine.queue.promoting import Promoted
from factorychain_engine.records.stored_run import StoredRun, record_of
from factorychain_engine.runs.attempts import TakenOver
from factorychain_engine.runs.bookkeeping import Bookkeeping
from factorychain_engine.runs.supervised_run import SupervisedRun
from factorychain_engine.runs.supervised_runs import SupervisedRuns
from factorychain_engine.validation import StartRequest

log = get_logger(__name__)
_active = up_down_counter("factorychain.engine.active_runs", "Runs that this engine looks after")
_ended = counter("factorychain.engine.runs", "Runs that ended, by state and reason")

TRIES_TO_WAIT: Final = 5
"""So often a start may find room at agents that others take before it."""

MakeRun = Callable[[Principal, ActiveRun, UserExecutionContext | None], SupervisedRun]


class RunSupervisor:
    """A component: the tasks of all runs of this engine."""

    name = "runs"

    def __init__(
        self,
        factory: ExecutionEngineFactory,
        make_run: MakeRun,
        runs: SupervisedRuns,
        books: Bookkeeping,
        *,
        on_trouble: Callable[[], None],
    ) -> None:
        """`on_trouble` is called when a run was left for somebody to adopt."""
        self._factory = factory
        self._make_run = make_run
        self._runs = runs
        self._books = books
        self._on_trouble = on_trouble
        self._tasks = TaskSet(self.name)
        self._stopping = False

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        """Nothing to do: runs come by `start_run` and `adopt`."""

    async def stop(self) -> None:
        """Hand every run to another engine. None of them is ended."""
        self._stopping = True
        await self._tasks.close()

    async def start_run(self, start: StartRequest, trace: str) -> Started:
        """Start a run; returns when agents have accepted it, or when it waits.

        Raises:
            FactoryChainError: it was refused, and nothing of it is stored.
        """
        if self._stopping:
            raise ChainDegraded("engine")
        answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        # Whoever asked may be gone when a refusal comes.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        task = self._tasks.spawn(self._started(start, trace, answer), start.run)
        task.add_done_callback(lambda _: _answer(answer, ChainDegraded("engine")))
        return await asyncio.shield(answer)

    def adopt(self, principal: Principal, entry: ActiveRun) -> None:
        """Look after a run whose engine is gone; its record names this engine already."""
        if not self._stopping and self._runs.find(principal, entry.run) is None:
            run = self._make_run(principal, entry, None)
            self._runs.add(run)
            run.tick()  # it may have been cancelled before
            _ = self._tasks.spawn(self._adopted(run), entry.run)

    def start_promoted(self, promoted: Promoted) -> None:
        """Start a run that had waited and has its place now; the record names this engine."""
        run = self._created(promoted.start.principal, promoted.taken)
        self._runs.add(run)
        _ = self._tasks.spawn(self._promoted(run, promoted), run.entry.run)

    # --- one run ----------------------------------------------------------------------------

    async def _started(
        self, start: StartRequest, trace: str, answer: asyncio.Future[Started]
    ) -> None:
        try:
            with log_context(run=start.run, thread=start.thread), self._runs.starting(start.run):
                await self._with_place(start, trace, answer)
        except (AlreadyStarted, Enqueued) as found:
            _answer(answer, found.started)
        except TakenOver:
            log.info("another engine looks after a run by now", run=start.run)
        except Exception as error:  # whatever it is, a run is left and must be adopted
            if isinstance(error, FactoryChainError) and not answer.done():
                log.debug("a start is refused", run=start.run, reason=error.reason)
                _answer(answer, error)  # a refusal: nothing is left of the start
                if isinstance(error, NatsUnavailable):
                    self._on_trouble()  # or a place, if only storage's answer was lost
                return
            log.exception("a run is left unattended", run=start.run)
            _answer(answer, error)
            self._on_trouble()

    async def _with_place(
        self, start: StartRequest, trace: str, answer: asyncio.Future[Started]
    ) -> None:
        """Until the run is over. One that may wait, and that agents have no room for after all, is tried
        again: by then it is known that they are full, so that it waits.
        """
        starting = self._factory.begin()
        for left in reversed(range(TRIES_TO_WAIT)):
            try:
                await self._placed(start, trace, starting, answer)
            except Capacity:
                if not starting.may_wait_for_place(start) or answer.done() or not left:
                    raise
            else:
                return

    async def _placed(
        self,
        start: StartRequest,
        trace: str,
        starting: Starting,
        answer: asyncio.Future[Started],
    ) -> None:
        run: SupervisedRun | None = None
        try:
            async with self._factory.place(start, trace, starting) as (place, taken):
                run = self._created(start.principal, taken)
                self._runs.add(run)
                ended = await self._execute(run, place, start, answer)
            _finish(run, ended)
        finally:
            self._forget(run)

    def _created(self, principal: Principal, taken: Taken) -> SupervisedRun:
        """The run with its context and token.

        `execution_engine` creation is what this engine makes for a run: its place (one round trip
        to storage, or two) and its context with the signed token. Waiting for another start or ending of the
        same user, for a run to be interrupted and for agents to accept the run is not part of it.
        """
        began_s = time.perf_counter()
        run = self._make_run(principal, taken.entry, taken.context)
        record_creation("execution_engine", taken.took_s + time.perf_counter() - began_s)
        return run

    async def _execute(
        self,
        run: SupervisedRun,
        place: Place,
        start: StartRequest,
        answer: asyncio.Future[Started],
    ) -> Run:
        known = _record_of(place.entry, start)
        _active.add(1)
        try:
            accepted = await self._begin(run, place, start)
            _answer(answer, Started.of_entry(place.entry, existing=False))
            crash_point("engine.start.answered")
            self._books.started(run, known, start.title, accepted)
            return await self._finished(run, place, known)
        finally:
            _active.add(-1)

    async def _begin(self, run: SupervisedRun, place: Place, start: StartRequest) -> bool:
        request = ExecuteRequest(
            input_json=start.input_json,
            metadata_json=start.metadata_json,
            context=start.context,
            replaces=start.replaces,
            resumes=start.resumes,
            resume_json=start.resume_json,
        )
        try:
            return await run.begin(request)
        except NotAccepted as error:
            place.refused(error.refusal, run.cancel_reason or "")
            raise error.refusal from None

    async def _adopted(self, run: SupervisedRun) -> None:
        async def look_after() -> None:
            log.info("a run was adopted")
            _active.add(1)
            try:
                async with self._factory.adopted(run.principal, run.entry) as place:
                    self._books.adopted(run)
                    ended = await self._finished(run, place, None)
            finally:
                _active.add(-1)
            _finish(run, ended)

        await self._looked_after(run, look_after())

    async def _promoted(self, run: SupervisedRun, promoted: Promoted) -> None:
        nobody: asyncio.Future[Started] = asyncio.get_running_loop().create_future()

        async def look_after() -> None:
            factory, entry = self._factory, run.entry
            async with factory.promoted(run.principal, entry, promoted.queued) as place:
                try:
                    ended = await self._execute(run, place, promoted.start, nobody)
                except FactoryChainError as error:
                    if place.returned is None:
                        raise
                    log.info("agents refuse a run that waited", reason=error.reason)
                    return
            _finish(run, ended)

        await self._looked_after(run, look_after())

    async def _looked_after(self, run: SupervisedRun, work: Coroutine[Any, Any, None]) -> None:
        """What this engine does for a run that nobody here has asked for."""
        try:
            with log_context(run=run.entry.run, thread=run.entry.thread):
                await work
        except TakenOver:
            log.info("another engine looks after a run by now", run=run.entry.run)
        except Exception:  # as above
            log.exception("a run is left unattended", run=run.entry.run)
            self._on_trouble()
        finally:
            self._forget(run)

    async def _finished(self, run: SupervisedRun, place: Place, known: StoredRun | None) -> Run:
        ended = await run.finish(known)
        with span("finish_run", parent=run.entry.trace) as finishing:
            state = RunState.Name(ended.state).removeprefix("RUN_STATE_").lower()
            finishing.set("run.state", state)
            _ended.add(1, {"state": state, "reason": ended.error.reason})
            self._books.ended(run, ended)
            place.ended(ended)
        return ended

    def _forget(self, run: SupervisedRun | None) -> None:
        if run is None:
            return
        run.close()
        self._runs.remove(run)
        if not run.ended.done():
            run.ended.set_exception(ChainDegraded("engine"))


def _record_of(entry: ActiveRun, start: StartRequest) -> StoredRun:
    # What a later attempt of a run needs is kept, where there may be one.
    context = start.context if entry.attempts > 1 else ()
    return record_of(entry, start.input_json, start.metadata_json, start.resumes, context)


def _finish(run: SupervisedRun, ended: Run) -> None:
    if not run.ended.done():
        run.ended.set_result(ended)


def _answer(answer: asyncio.Future[Started], with_: Started | Exception) -> None:
    """The first answer counts."""
    if answer.done():
        return
    if isinstance(with_, Exception):
        answer.set_exception(with_)
    else:
        answer.set_result(with_)
