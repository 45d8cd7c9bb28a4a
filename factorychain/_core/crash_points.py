"""Named places at which a test can have a process die: before and after each step that is durable or that
another process relies on.

Invariant: a place that is passed does nothing, and costs a truth test, unless a test has armed it: by
`FACTORYCHAIN_CRASH_FILE` in a process, which only development mode allows, or by `watch` in a simulation.

The file holds one line, the name of a place and at which pass of it the process dies; it may be written,
and written again, while the chain runs. Whoever dies removes it first, so that one process dies once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

CRASH_POINTS: Final = {
    "engine.start.admitting": "a start was decided on, nothing of it is stored",
    "engine.start.admitted": "the user's record has the place, nobody else knows",
    "engine.execute.sending": "agents have not heard of the run",
    "engine.execute.accepted": "agents have the run, whoever asked for it has no answer",
    "engine.start.answered": "whoever asked has the answer, nothing is recorded of the run",
    "engine.record.creating": "the run's record is not written",
    "engine.record.created": "the run's record is written, and not where its agents are",
    "engine.agents.noted": "the user's record says where the run's agents are",
    "engine.thread.recorded": "the thread's record is written",
    "engine.ending.found": "the ending was read from the log, the run's record does not show it",
    "engine.ending.recorded": "the run's record shows its ending, the place is taken",
    "engine.place.freeing": "everything of the run is done but its place",
    "engine.place.freed": "the place is free, and its run still in this engine's hands",
    "engine.adopt.taking": "a run of an engine that is gone was found",
    "engine.adopt.taken": "the user's record names this engine, which does not look after the run yet",
    "engine.attempt.taking": "a run's agents are lost, no other attempt is decided on",
    "engine.attempt.taken": "the next attempt has its number, and no agents",
    "engine.attempt.noting": "agents have a later attempt, the run's record shows the one before",
    "engine.attempt.noted": "the run's record shows its later attempt",
    "engine.cancel.marked": "a run is marked to end, its agents have not heard",
    "engine.settle.saying": "a run was given up, its ending is not said",
    "engine.settle.said": "the ending that the engine said is durable, its record does not show it",
    "engine.answer.passing": "a user's answer has not reached the agents",
    "engine.answer.passed": "the agents have the answer, its user does not know",
    "engine.answer.keeping": "a request of a run that has ended is answered, its record does not show it",
    "engine.answer.kept": "the record of an ended run has the answer, the run that goes on is not started",
    "engine.value.storing": "a value of a thread is not stored",
    "engine.value.stored": "the value is stored, its agent does not know",
    "engine.value.removing": "a value of a thread is wanted no more, and still stored",
    "engine.value.removed": "the value is gone, its agent does not know",
    "engine.queue.keeping": "a start has to wait, nothing of it is stored",
    "engine.queue.kept": "what a run that waits is started with is stored, the queue does not have it",
    "engine.queue.enqueued": "the run waits, nobody else knows",
    "engine.queue.announced": "the run's position is in the log",
    "engine.queue.promoting": "it is a run's turn, and it still waits",
    "engine.queue.promoted": "a run that waited has its place, nobody looks after it",
    "engine.queue.refusing": "it is a run's turn and it cannot be started, which nobody knows",
    "engine.queue.refused": "a run that cannot be started is marked to end, its ending is not said",
    "engine.queue.marked": "a run that waits is marked to end, its ending is not said",
    "engine.queue.leaving": "the ending of a run that waited is recorded, the queue still has it",
    "engine.queue.left": "it has left the queue, what was kept of it is there",
    "engine.queue.forgotten": "nothing is left of one that waited but its ending, whoever ended it does not know",
    "engine.queue.handing": "an engine stops, and its queue is still its own",
    "engine.queue.handed": "the queue of an engine that stops is nobody's",
    "engine.place.handing": "an engine stops, and its run is still its own",
    "engine.place.handed": "the run of an engine that stops is nobody's",
    "engine.ticket.storing": "a user begins to wait for room, or got it: the list has the ticket of before",
    "engine.ticket.stored": "the list has the user's ticket, this engine does not know which",
    "engine.ticket.served": "the tenant of a user who got room has the next ticket, the user has not",
    "engine.ticket.removed": "a user waits for room no more, this engine still counts them",
    "engine.restore.entering": "storage has lost a user's record, what is known of it is here alone",
    "engine.restore.entered": "the lost record is there again, nobody looks after its queue",
    "engine.heartbeat.renewed": "the heartbeat was just renewed",
    "agents.run.accepting": "the run was checked and nothing of it is here",
    "agents.run.accepted": "the run is here, the engine does not know",
    "agents.event.sending": "an agent said something, nobody has it",
    "agents.event.sent": "the event was handed to the link",
    "agents.answer.taken": "the agent has its user's answer, the engine does not know",
    "agents.ending.sending": "the agent has ended, nobody knows",
    "agents.ending.durable": "the ending is in the log, the engine does not know",
    "emitter.run.opened": "a run was opened here, and not at the bridge",
    "emitter.event.taken": "an event was taken, nothing is done with it",
    "emitter.event.forwarded": "the event is on its way to the bridge",
    "emitter.event.durable": "the bridge has confirmed events, agents do not know",
    "bridge.run.opened": "a run was opened here, nothing of it is stored",
    "bridge.append.sending": "a batch is ready, and not sent to the log",
    "bridge.append.stored": "a batch is in the log, nobody was told",
    "bridge.append.acknowledged": "the batch was acknowledged to the emitter's channel",
    "bridge.log.reading": "where a run stands has to be read from its thread's log",
    "bridge.ending.stored": "a run's ending is in the log, nobody was told",
    "bridge.thread.joining": "a client wants a thread, nothing was read",
    "bridge.socket.writing": "events were taken from the feed, and not written to the socket",
}
"""Every place with what is the case there."""

_watcher: Callable[[str], None] | None = None


def crash_point(name: str) -> None:
    """This place is passed."""
    if _watcher is not None:
        _watcher(name)


def watch(watcher: Callable[[str], None] | None) -> None:
    """Have `watcher` hear of every place that is passed; None ends that."""
    global _watcher
    _watcher = watcher


def die_as_told(file: Path) -> None:
    """Have this process die where `file` says, whenever it says so."""
    watch(_Victim(file).passed)


class _Victim:
    """Counts passes of the place that the file names."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._told = ""
        self._passes = 0

    def passed(self, name: str) -> None:
        try:
            told = self._file.read_text()
        except FileNotFoundError:
            return
        if told != self._told:
            self._told, self._passes = told, 0
        wanted, _, at_pass = told.partition(" ")
        if wanted != name:
            return
        self._passes += 1
        if self._passes >= int(at_pass or 1):
            self._die()

    def _die(self) -> None:
        try:
            self._file.unlink()
        except FileNotFoundError:
            return  # another process has died instead
        os.kill(os.getpid(), signal.SIGKILL)
