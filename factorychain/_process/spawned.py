"""`python -P -m factorychain._process.spawned FD SERVICE`: a run process that is started, not forked.

For agents whose modules do not survive a fork. It is confined before it imports them, since threads that
they start would stay free of what confines the one that asks for it; what they share is made here, for
this run alone, and closed after it.
"""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from factorychain._process import control
from factorychain._process.agents import Agents
from factorychain._process.confining import confined
from factorychain._process.control import ForkRequest, Setup
from factorychain._process.instance import Instance, last_of_all, make_ready
from factorychain._process.output import PrintedOutput
from factorychain._sandbox import Confinement, prepare

_IMPORTS_BYTES: Final = 8 * 1024 * 1024 * 1024
"""Address space for what is imported, beside that of the run."""


def main(arguments: Sequence[str]) -> None:
    """Be confined, import the agent, run it once."""
    orders = socket.socket(fileno=int(arguments[0]))
    received = control.receive(orders)
    if received is None:
        return
    fields, fds = received
    setup, request = Setup.from_json(fields), ForkRequest.from_json(fields)
    end, place = socket.socket(fileno=fds[0]), request.places[0]
    with last_of_all():
        own = make_ready(place)
        sys.path[:] = setup.path
        prepare()
        confinement = Confinement.from_json(request.confinement)
        wide = replace(confinement, memory_bytes=confinement.memory_bytes + _IMPORTS_BYTES)
        lacking = confined(wide, own, [end.fileno(), orders.fileno()])
        printed = PrintedOutput()
        agents = Agents()
        agents.load(setup)
        _limit_memory(confinement.memory_bytes)
        orders.close()  # now another one may be started
        instance = Instance(end, agents, int(arguments[1]), agents.loop, printed)
        instance.run(lacking)
        agents.close()


def _limit_memory(beyond_bytes: int) -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - there is no other thread's memory to spare
        mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limit_bytes = mapped_bytes + beyond_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    main(sys.argv[1:])
