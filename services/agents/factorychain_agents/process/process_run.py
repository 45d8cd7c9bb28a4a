"""One run in a process of its own: `RunHandle`.

Invariant: what the instance says reaches the host in order and checked, and nothing of it after the
outcome; there is exactly one outcome, whatever becomes of the process, and in the end no process.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import orjson

from factorychain._core.logging import get_logger
from factorychain._instance.ending import cancelled
from factorychain._instance.host import RunHost
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain._process.messages import (
    number,
    numbered,
    pack_spec,
    unpack_outcome,
    unpack_span,
)
from factorychain._process.wire import BrokenFrame, FromInstance, ToInstance
from factorychain_agents.process.checks import EventChecks
from factorychain_agents.process.child import Exit
from factorychain_agents.process.endings import outcome_of_death, with_text
from factorychain_agents.process.instance_process import RunProcess
from factorychain_agents.process.machine import OutOfMemory
from factorychain_agents.process.pace import Pace
from factorychain_agents.process.passage import Passage
from factorychain_agents.process.printed import PrintedLines, Show
from factorychain_agents.process.requests import Requests

log = get_logger(__name__)

# An instance that has said its last word has nothing to do but to end.
_LAST_MOMENT_S: Final = 1.0
_SIGNS: Final = frozenset({FromInstance.EVENT, FromInstance.BEAT, FromInstance.CREATED})


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What may end a run's process."""

    cpu_s: float
    """As it was confined to."""
    silent_s: float
    """Without a sign of life for so long, its loop is held up for good."""
    grace_s: float
    """Between SIGTERM and SIGKILL, where the service itself ends it."""
    events_per_s: float
    """What it may say, in the long run."""
    events_burst: float
    """What it may say before that."""


class ProcessRun:
    """A run whose instance is a process."""

    def __init__(
        self,
        process: RunProcess,
        spec: RunSpec,
        host: RunHost,
        limits: RunLimits,
        show: Show,
        machine: OutOfMemory,
    ) -> None:
        self._process = process
        self._spec = spec
        self._host = host
        self._limits = limits
        self._checks = EventChecks(spec.trace)
        self._printed = PrintedLines(spec.run, show)
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._last_word = False
        self._fault = ""
        self._ended_for = ""
        self._cancelled = False
        self._kill: asyncio.TimerHandle | None = None
        self._sign_at = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None
        pace = Pace(limits.events_per_s, limits.events_burst)
        self._passage = Passage(spec.run, host, self, pace, self._decide)
        self._requests = Requests(process, host, self._passage.in_turn)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def begin(self) -> None:
        """Hand the run to its process."""
        self._process.belong_to(self)
        self._process.send(ToInstance.START, pack_spec(self._spec))
        self._look_for_signs()

    # --- what the run's owner does (`RunHandle`) ---

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._process.send(ToInstance.CANCEL)
            self._process.terminate()

    def reject(self, reason: str, message: str) -> None:
        told = orjson.dumps({"reason": reason, "message": message})
        self._process.send(ToInstance.REJECT, told)

    async def wait(self) -> Outcome:
        await asyncio.wait({self._outcome})
        return self._outcome.result()

    def abandon(self) -> None:
        log.warning(
            "an agent did not stop when cancelled and was killed",
            run=self._spec.run,
            agent=self._spec.agent,
        )
        self._passage.close()
        self._process.kill()
        self._decide(Outcome(OutcomeKind.CANCELLED))

    # --- what the instance is told of its events (`Replies`) ---

    def room(self, passed_on_bytes: int) -> None:
        self._process.send(ToInstance.ROOM, number(passed_on_bytes))

    def closed(self) -> None:
        self._process.send(ToInstance.CLOSED)

    # --- what the process says and does (`Owner`) ---

    def heard(self, kind: FromInstance, payload: bytes) -> None:
        if self._last_word:
            raise BrokenFrame("it says something after its outcome")
        if kind in _SIGNS:
            self._sign_at = self._loop.time()
        if kind is FromInstance.EVENT:
            number_of_kind, event = numbered(payload)
            self._checks.check(number_of_kind, event)
            self._passage.take(number_of_kind, event)
        elif kind is FromInstance.BEAT:
            self._host.beat()
        elif kind is FromInstance.CREATED:
            self._host.created()
        elif kind is FromInstance.SPAN:
            self._host.span(unpack_span(payload, self._spec.trace))
        elif kind is FromInstance.REQUEST:
            self._requests.take(payload)
        elif kind is FromInstance.FORGET:
            self._requests.forget(numbered(payload)[0])
        elif kind is FromInstance.OUTPUT:
            self._printed.add(payload)
        elif kind is FromInstance.OUTCOME:
            self._finish(unpack_outcome(payload, self._spec.output_max_bytes))

    def broke(self, why: str) -> None:
        if not self._last_word:
            self._fault = why
            self._process.kill()

    def ended(self, how: Exit, words: str) -> None:
        for timer in (self._kill, self._watch):
            if timer is not None:
                timer.cancel()
        self._printed.finish(words)
        if not self._last_word:
            self._finish(self._of_death(how, words))
        self._requests.close()

    # --- inside ---

    def _finish(self, outcome: Outcome) -> None:
        self._last_word = True
        self._passage.finish(with_text(outcome))
        self._kill_after(_LAST_MOMENT_S)

    def _kill_after(self, delay_s: float) -> None:
        if self._kill is not None:
            self._kill.cancel()
        self._kill = self._loop.call_later(delay_s, self._process.kill)

    def _decide(self, outcome: Outcome) -> None:
        if not self._outcome.done():
            if self._ended_for:
                outcome = cancelled(self._ended_for, outcome.usage)
            self._outcome.set_result(outcome)

    def _look_for_signs(self) -> None:
        """End it if its loop does not come round any more."""
        silent_s = self._loop.time() - self._sign_at
        left_s = self._limits.silent_s - silent_s
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look_for_signs)
        elif not self._last_word:
            self._ended_for = "UNRESPONSIVE"
            self._process.terminate()
            self._kill_after(self._limits.grace_s)

    def _of_death(self, how: Exit, words: str) -> Outcome:
        if self._cancelled or self._ended_for:
            return Outcome(OutcomeKind.CANCELLED)
        short = self._machine.lately()
        outcome = outcome_of_death(how, words, self._limits.cpu_s, memory_short=short)
        log.warning(
            "a run process ended before its run",
            run=self._spec.run,
            agent=self._spec.agent,
            reason=outcome.reason,
            ended=str(how),
            fault=self._fault,
            cpu_s=round(how.cpu_s, 2),
            peak_bytes=how.peak_bytes,
        )
        return outcome
