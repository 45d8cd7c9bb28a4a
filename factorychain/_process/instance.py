"""A run process: made ready, then one run, then its end.

Invariant: before the first byte of a run is read, the process is confined; it runs one run and ends,
whatever that run's code has done to it; it ends when the service is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import mmap
import os
import signal
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import orjson

from factorychain._instance import model_access
from factorychain._instance.active import ActiveRun
from factorychain._instance.runner import run_agent
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain._instance.sub_agents import SubAgents
from factorychain._process.agents import Agents
from factorychain._process.control import WORDS_SUFFIX, Place
from factorychain._process.fresh import forget_parent
from factorychain._process.messages import numbered, unpack_spec
from factorychain._process.outbox import Outbox
from factorychain._process.output import PrintedOutput
from factorychain._process.parent import die_with
from factorychain._process.remote_host import RemoteHost
from factorychain._process.stopping import Stopping
from factorychain._process.trace_context import enter_trace
from factorychain._process.wire import Decoder, FromInstance, ToInstance, frame
from factorychain._sandbox import hint

LIMITS: Final = frozenset({"MEMORY_LIMIT", "CPU_LIMIT"})
"""Reasons of outcomes that name a limit of the process."""
_READ_BYTES: Final = 64 * 1024
_FIRST_POLL_S: Final = 0.002
_MAX_POLL_S: Final = 0.1
_ALONE_S: Final = 2.0
_LAST_CLOSING_S: Final = 1.0
_RESERVE_BYTES: Final = 8 * 1024 * 1024
_NAME_BYTES: Final = 8


def name_of_forked(zygote: int) -> str:
    """What a process calls itself that a zygote has forked, so that it is known when its parent is gone."""
    return f"run-of-{zygote}"


def _take_name(name: str) -> None:
    comm = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(comm, name.encode())
    os.close(comm)


def make_ready(place: Place) -> str:
    """Be a process of its own: group, signals, random numbers, directory, standard descriptors.

    Returns:
        The folder that it may write.
    """
    # The session stays that of the services: between sessions the kernel may divide its time as if
    # everybody in them had the same weight (sched(7), autogroup).
    zygote = os.getpgid(0)
    if zygote != os.getpid():
        _take_name(name_of_forked(zygote))
        os.setpgid(0, 0)
    forget_parent()
    own = _own_folder(place)
    null = os.open(os.devnull, os.O_RDWR)
    # What is written past Python: by libraries, and the last words of a crash.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    words = os.open(own + WORDS_SUFFIX, flags, 0o600)
    for number, source in enumerate((null, words, words)):
        os.dup2(source, number)
    faulthandler.enable(2)
    return own


def _own_folder(place: Place) -> str:
    """Made under a name that no other process knows."""
    own = f"{place.directory}/{os.urandom(_NAME_BYTES).hex()}"
    for each in (place.directory, own):
        os.mkdir(each, 0o700)  # noqa: PTH102 - pathlib would only write to more of the shared memory
    return own


@contextlib.contextmanager
def last_of_all() -> Iterator[None]:
    """What is done here is the last that the process does, and it never goes on as its parent's copy.

    Python's own end is left out: threads of the agent's code may never come to theirs.
    """
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - for the log: nothing else is left to tell
        os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))
        os._exit(1)
    finally:
        os._exit(0)


class Instance:
    """One run process, seen from inside."""

    def __init__(
        self,
        end: socket.socket,
        agents: Agents,
        service: int,
        loop: asyncio.AbstractEventLoop,
        printed: PrintedOutput,
    ) -> None:
        """To be made in a process that is confined.

        Args:
            end: the socket to the service.
            agents: those that can be run here.
            service: pid of the service, whose end is this process's as well.
            loop: what everything runs on.
            printed: the standard streams.
        """
        end.setblocking(False)
        self._end = end
        self._agents = agents
        self._service = service
        self._printed = printed
        self._loop = loop
        asyncio.set_event_loop(self._loop)
        self._outbox = Outbox(end, self._loop)
        self._host = RemoteHost(self._outbox)
        self._decoder = Decoder(ToInstance)
        self._stopping = Stopping(self._loop)
        self._spec: asyncio.Future[RunSpec] = self._loop.create_future()
        self._forked_by = os.getppid()
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self._active: ActiveRun | None = None
        self._outcome: Outcome | None = None
        self._reserve = mmap.mmap(-1, _RESERVE_BYTES)

    def run(self, lacking: list[str]) -> None:
        """Wait for a run, run it, say what came of it. `lacking` is what does not confine it."""
        self._printed.send_to(self._outbox)
        self._follow_parent()
        self._loop.add_reader(self._end, self._readable)
        self._outbox.post(frame(FromInstance.READY, orjson.dumps(lacking)))
        spec = self._loop.run_until_complete(self._told())
        task = self._loop.create_task(self._work(spec))
        self._stopping.watch(task)
        try:
            self._loop.run_until_complete(task)
        except BaseException as error:  # noqa: BLE001 - an interrupted loop, or no memory even for that
            self._broken(error, task)
        self._loop.run_until_complete(self._say_goodbye())

    async def _told(self) -> RunSpec:
        """What to run. Not before the parent is the one to die with: code that holds up the loop is next."""
        spec = await self._spec
        await self._settled
        return spec

    async def _work(self, spec: RunSpec) -> None:
        found = self._agents.find(spec.agent)
        sub_agents = SubAgents(self._agents.find_inside, found.definition.needs)
        self._active = run = ActiveRun(spec, self._host, self._loop, hint, sub_agents)
        enter_trace(spec.trace)
        model_access.enter(spec)
        self._outcome = await run_agent(run, found.definition, found.injection)

    def _broken(self, error: BaseException, task: asyncio.Task[None]) -> None:
        """The loop was left: by an interruption outside of the agent's tasks, or for want of memory."""
        self._reserve.close()
        short = isinstance(error, MemoryError)
        task.cancel()
        with contextlib.suppress(BaseException):  # what is made for the run is closed if it can be
            self._loop.run_until_complete(asyncio.wait({task}, timeout=_LAST_CLOSING_S))
        if short or self._outcome is None:
            reason = "MEMORY_LIMIT" if short else "AGENT_FAILED"
            self._outcome = Outcome(OutcomeKind.FAILED, reason=reason)

    async def _say_goodbye(self) -> None:
        self._reserve.close()
        self._printed.flush()
        await self._host.outcome(self._explained(self._outcome or Outcome(OutcomeKind.CANCELLED)))
        await self._outbox.flushed()

    def _explained(self, outcome: Outcome) -> Outcome:
        """The outcome, with the limit that was behind it."""
        if self._stopping.reason and outcome.kind is not OutcomeKind.COMPLETED:
            return replace(outcome, kind=OutcomeKind.FAILED, reason=self._stopping.reason)
        failure = self._active.printed if self._active is not None else None
        if isinstance(failure, MemoryError) and outcome.reason == "AGENT_FAILED":
            return replace(outcome, reason="MEMORY_LIMIT")
        return outcome

    # --- what the service says ---

    def _readable(self) -> None:
        try:
            data = self._end.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._alone()
            return
        self._decoder.feed(data)
        for kind, payload in self._decoder.frames():
            self._heard(ToInstance(kind), payload)

    def _heard(self, kind: ToInstance, payload: bytes) -> None:
        if kind is ToInstance.ROOM:
            self._host.more_room(numbered(payload)[0])
        elif kind is ToInstance.START:
            self._spec.set_result(unpack_spec(payload))
        elif kind is ToInstance.CANCEL:
            self._stopping.cancel()
        elif kind is ToInstance.REJECT:
            if self._active is not None:
                told = orjson.loads(payload)
                self._active.reject(told["reason"], told["message"])
        elif kind is ToInstance.ANSWER_PART:
            self._host.answer_part(*numbered(payload))
        elif kind is ToInstance.ANSWER_END:
            self._host.answer_end(*numbered(payload))
        else:
            self._host.close()

    # --- the parent ---

    def _follow_parent(self, again_s: float = _FIRST_POLL_S) -> None:
        """Once the process that forked this one has ended, the service is the parent."""
        moved = os.getppid() != self._forked_by
        if die_with(self._service) or moved:
            self._settled.set_result(None)
        else:
            self._loop.call_later(again_s, self._follow_parent, min(2 * again_s, _MAX_POLL_S))

    def _alone(self) -> None:
        """The service is gone, or has let go of this process: a moment to clean up, then the end."""
        self._loop.remove_reader(self._end)
        if not self._spec.done():
            os._exit(0)
        self._host.close()
        self._stopping.cancel()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _ALONE_S)
