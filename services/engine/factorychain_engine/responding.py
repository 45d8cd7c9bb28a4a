"""Takes a user's answer to where it is waited for: the run that asks, or the record of one that has ended
with requests, whose last answer starts the next run.

Invariant: an answer is taken once. A run has it from its agents replica, which knows what it was answered;
an ended run from its record, which changes by compare-and-set before anything is started: so whoever dies
on the way, the same answer again goes on from there, and every answer again finds the same next run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import orjson

from factorychain._core.answer_schema import problem_of
from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.log_reader import ThreadLogReader
from factorychain.errors import (
    ChainDegraded,
    InvalidField,
    RequestAnswered,
    RequestClosed,
    RequestNotFound,
    RunNotFound,
)
from factorychain.types.v1.event_pb2 import InputReceived
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.agents.layer import Agents
from factorychain_engine.places.started import Started
from factorychain_engine.records.endings import has_ended
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.runs.supervised_runs import SupervisedRuns
from factorychain_engine.tokens.run_tokens import RunTokens
from factorychain_engine.validation import Answer, StartRequest, resuming_start

LOOKS: Final = 8
LOOK_S: Final = 0.5
"""How often, and for how long each time, it is looked whether a run that does not answer has ended."""

Start = Callable[[StartRequest, str], Awaitable[Started]]


@dataclass(frozen=True, slots=True)
class GoesOn:
    """What an answer comes to."""

    run: str
    """The run that goes on, or that waits for more answers."""
    thread: str
    epoch: int = 0
    after: int = 0
    existing: bool = False
    trace: str = ""
    open: tuple[str, ...] = ()
    """Requests of an ended run that are not answered yet."""


class Responder:
    """Takes answers."""

    def __init__(
        self,
        *,
        users: UsersStore,
        records: Records,
        outcomes: Outcomes,
        log: ThreadLogReader,
        runs: SupervisedRuns,
        agents: Agents,
        tokens: RunTokens,
        start: Start,
    ) -> None:
        self._users = users
        self._records = records
        self._outcomes = outcomes
        self._log = log
        self._runs = runs
        self._agents = agents
        self._tokens = tokens
        self._start = start

    async def respond(
        self, principal: Principal, answer: Answer, trace: str, plan: str = ""
    ) -> GoesOn:
        """Take an answer of this principal, whose token names `plan`.

        Raises:
            RunNotFound: the principal has no such run.
            InvalidField: the answer does not fit; the request stays open.
            RequestNotFound, RequestAnswered, RequestClosed: nobody waits for it.
            UserEngineLimit, ThreadBusy, …: the next run cannot start now. The answer is kept.
            ChainDegraded: storage or agents are away.
        """
        for _ in range(LOOKS):
            entry = await self._place(principal, answer.run)
            if entry is not None:
                if await self._to_agents(principal, entry, answer):
                    return GoesOn(entry.run, entry.thread)
                # It ends this moment, or agents are only now taking it.
                await self._outcomes.wait(principal, entry, LOOK_S)
            stored = await self._ended(principal, answer.run)
            if stored is not None:
                found = await self._to_record(principal, stored, answer, trace, plan)
                if found is not None:
                    return found
        raise ChainDegraded("agents", message="the run takes no answer right now; try again")

    async def _place(self, principal: Principal, run: str) -> ActiveRun | None:
        here = self._runs.find(principal, run)
        if here is not None:
            return None if here.ended.done() else here.entry
        return (await self._users.read(principal)).record.find(run)

    # --- a run that asks --------------------------------------------------------------------

    async def _to_agents(self, principal: Principal, entry: ActiveRun, answer: Answer) -> bool:
        """False: agents do not have the run."""
        here = self._runs.find(principal, entry.run)
        address = entry.agents_address if here is None else here.agents_address
        context = self._tokens.run(principal, entry) if here is None else here.context
        crash_point("engine.answer.passing")
        try:
            await self._agents.respond(
                context, address, answer.request, answer.value_json, entry.trace
            )
        except RunNotFound:
            return False
        crash_point("engine.answer.passed")
        return True

    # --- a run that has ended ---------------------------------------------------------------

    async def _ended(self, principal: Principal, run: str) -> StoredRun | None:
        """The record of the run if it has ended; None while it has not.

        Raises:
            RunNotFound: the principal has none of this id.
        """
        stored = await self._records.find_run(principal, run)
        if stored is None:
            if await self._place(principal, run) is None:
                raise RunNotFound
            return None
        if has_ended(stored.run):
            return stored
        if await self._outcomes.of_record(principal, stored) is None:
            return None
        return await self._records.find_run(principal, run)

    async def _to_record(
        self, principal: Principal, stored: StoredRun, answer: Answer, trace: str, plan: str
    ) -> GoesOn | None:
        """None: the record has changed meanwhile."""
        run = stored.run
        asked = next((each for each in run.pending if each.request == answer.request), None)
        if asked is None:
            await self._check_answered(principal, stored, answer)
            return GoesOn(run.run, run.thread)
        known = next((each for each in run.answers if each.request == answer.request), None)
        if known is None:
            problem = await asyncio.to_thread(problem_of, asked.schema_json, answer.value_json)
            if problem:
                raise InvalidField("value", problem)
            received = InputReceived(request=answer.request, value_json=answer.value_json)
            answered = await self._records.answer_run(principal, stored, received)
            if answered is None:
                return None
            run = answered.run
        elif not _same(known.value_json, answer.value_json):
            raise RequestAnswered(answer.request)
        return await self._go_on(principal, run, trace, plan)

    async def _go_on(self, principal: Principal, run: Run, trace: str, plan: str) -> GoesOn:
        left = _open(run)
        if left:
            return GoesOn(run.run, run.thread, open=left)
        started = await self._start(resuming_start(principal, run, plan), trace)
        return GoesOn(
            started.run,
            started.thread,
            started.epoch,
            started.after,
            started.existing,
            started.trace,
        )

    async def _check_answered(
        self, principal: Principal, stored: StoredRun, answer: Answer
    ) -> None:
        """Whether this is the answer that the run was given while it asked.

        Raises:
            RequestNotFound: it has asked no such thing.
            RequestAnswered, RequestClosed: it was given another one, or none.
        """
        found = await self._received(principal, stored, answer.request)
        if found is None:
            raise RequestNotFound(_open(stored.run))
        if found.closed:
            raise RequestClosed(answer.request, "its run has ended")
        if not _same(found.value_json, answer.value_json):
            raise RequestAnswered(answer.request)

    async def _received(
        self, principal: Principal, stored: StoredRun, request: str
    ) -> InputReceived | None:
        """What the log says of a request of the run."""
        thread = stored.run.thread
        last = await self._log.last(principal, thread)
        upto = 0 if last is None else last.stream_seq
        async for _, batch in self._log.read_from(principal, thread, stored.base, upto):
            if batch.run == stored.run.run:
                for event in batch.events:
                    if event.input_received.request == request:
                        return event.input_received
                if batch.ends:
                    return None
        return None


def _open(run: Run) -> tuple[str, ...]:
    answered = {each.request for each in run.answers}
    return tuple(each.request for each in run.pending if each.request not in answered)


def _same(one_json: str, other_json: str) -> bool:
    return _form(one_json) == _form(other_json)


def _form(value_json: str) -> bytes:
    return orjson.dumps(orjson.loads(value_json), option=orjson.OPT_SORT_KEYS)
