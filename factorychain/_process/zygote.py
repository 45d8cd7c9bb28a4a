"""`python -P -m factorychain._process.zygote FD SERVICE`: the parent of run processes.

It is executed anew, so that nothing of the service is in it, imports the agents once, and from then on
does one thing: fork. Invariant: it has one thread and runs no code of any run; nothing that a user says
ever reaches it.

It forks twice: a short-lived process forks the run processes, hands their sockets and pidfds to the
service and ends. So they are the service's children, which alone reaps them, and the end of the zygote is
nothing to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from factorychain._process import control
from factorychain._process.agents import Agents
from factorychain._process.confining import confined
from factorychain._process.control import ForkRequest, Place, Setup
from factorychain._process.instance import Instance, last_of_all, make_ready
from factorychain._process.output import PrintedOutput
from factorychain._process.parent import die_with
from factorychain._process.warming import warm_libraries
from factorychain._sandbox import Confinement, prepare
from factorychain._sandbox.slices import take_default_slices


def main(arguments: Sequence[str]) -> None:
    """Prepare, then fork on request until the service is gone."""
    end = socket.socket(fileno=int(arguments[0]))
    service = int(arguments[1])
    if not die_with(service):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    printed = PrintedOutput()  # before anything can keep the streams that were there
    agents = _prepare(end)
    if agents is None:
        return
    zygote = _Zygote(end, agents, service, printed)
    while zygote.serve_one():
        pass
    agents.close()


def _prepare(end: socket.socket) -> Agents | None:
    received = control.receive(end)
    if received is None:
        return None
    setup = Setup.from_json(received[0])
    gc.disable()  # now, since what is loaded stays, and for as long as it forks
    take_default_slices()  # the service that has started this has short ones
    _warm_up()
    agents = Agents()
    agents.load(setup)
    agents.loop.run_until_complete(warm_libraries())
    agents.rest()
    prepare()
    control.send(end, agents.prepared.to_json())
    gc.collect()
    gc.freeze()
    if agents.forkable:
        return agents
    agents.close()
    return None


def _warm_up() -> None:
    """Load what a run would load when it is first needed."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@dataclass(slots=True)
class _Zygote:
    end: socket.socket
    agents: Agents
    service: int
    printed: PrintedOutput

    def serve_one(self) -> bool:
        """Wait for a request and do it; False when there will be no more."""
        received = control.receive(self.end)
        if received is None:
            return False
        request = ForkRequest.from_json(received[0])
        try:
            nursery = os.fork()
        except OSError as error:
            self._refuse(request.places, str(error))
            return True
        if nursery == 0:
            self._fork_all(request)
        _, status = os.waitpid(nursery, 0)
        if status:
            # Of those that it has handed over before its end this is not heard any more.
            self._refuse(request.places, f"what was to fork it ended with {status}")
        return True

    def _fork_all(self, request: ForkRequest) -> None:
        """In the short-lived process: fork each, hand it over, end."""
        with last_of_all():
            confinement = Confinement.from_json(request.confinement)
            for at, place in enumerate(request.places):
                try:
                    self._fork(place, confinement)
                except OSError as error:
                    self._refuse(request.places[at:], str(error))
                    break

    def _fork(self, place: Place, confinement: Confinement) -> None:
        ours, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            self.end.close()
            ours.close()
            self._become(place, confinement, its)
        pidfd = os.pidfd_open(pid)
        control.send(self.end, {"forked": place.id, "pid": pid}, [ours.fileno(), pidfd])
        os.close(pidfd)
        ours.close()
        its.close()

    def _become(self, place: Place, confinement: Confinement, its: socket.socket) -> NoReturn:
        with last_of_all():
            own = make_ready(place)
            lacking = confined(confinement, own, [its.fileno()])
            loop = asyncio.new_event_loop()
            instance = Instance(its, self.agents, self.service, loop, self.printed)
            instance.run(lacking)
        raise AssertionError("this process has ended")

    def _refuse(self, places: Sequence[Place], why: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the service is gone, and nobody asks any more
            for each in places:
                control.send(self.end, {"failed": each.id, "error": why})


if __name__ == "__main__":
    main(sys.argv[1:])
