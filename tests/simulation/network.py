"""The network between processes: connections that keep order, are slow, and break.

Invariants: what arrives on a connection arrives in order and once; both ends of a broken connection
hear of it, each in its own time; nothing arrives at a process that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from tests.simulation.loop import Process, SimulatedLoop

Acceptor = Callable[["End"], None]


class End:
    """One end of a connection. Who owns it sets `on_message` and `on_lost` before anything comes."""

    def __init__(self, network: Network, process: Process) -> None:
        self.process = process
        self.open = True
        self.on_message: Callable[[Any], None] = _ignore
        self.on_lost: Callable[[], None] = _nothing
        self.peer: End
        self.last_at_s = 0.0
        """When the last arrives here of what is under way."""
        self._network = network

    def send(self, message: object) -> None:
        """To the other end, after everything sent before; nothing if the connection is gone."""
        if self.open and self.process.alive:
            to = self.peer
            if to.process.alive:
                network = self._network
                network.loop.call_in(to.process, network.arrival(self), to.arrived, message)

    def close(self) -> None:
        """An orderly end: what was sent still arrives, then the peer hears of it."""
        if self.open:
            self.send(_GOODBYE)
            self.open = False
            self._network.forget(self)

    def arrived(self, message: object) -> None:
        if not self.open:
            return
        if message is _GOODBYE:
            self.lose()
        else:
            self.on_message(message)

    def lose(self) -> None:
        if self.open:
            self.open = False
            self._network.forget(self)
            self.on_lost()


_GOODBYE = object()


class Network:
    """Addresses, connections, and what goes wrong with them."""

    def __init__(self, loop: SimulatedLoop, random: Random) -> None:
        self.loop = loop
        self.names: dict[str, list[str]] = {}
        self._random = random
        self._listeners: dict[str, tuple[Process, Acceptor]] = {}
        self._ends: dict[End, None] = {}
        self._held: dict[frozenset[str], float] = {}

    # --- addresses --------------------------------------------------------------------------

    def listen(self, address: str, accept: Acceptor) -> None:
        self._listeners[address] = (self.loop.current, accept)

    def unlisten(self, address: str) -> None:
        self._listeners.pop(address, None)

    def addresses(self, target: str) -> list[str]:
        """Those of a name that can be reached now."""
        found = self.names.get(target, [target])
        return [
            each for each in found if each in self._listeners and self._listeners[each][0].alive
        ]

    async def resolve(self, target: str) -> list[str]:
        """The addresses of a name, whether they can be reached or not."""
        return list(self.names.get(target, [target]))

    def any_of(self, number: int) -> int:
        """One of so many, by chance."""
        return int(self._random.random() * number)

    def connect(self, address: str) -> End | None:
        """A connection of the current process; None if nobody listens."""
        listening = self._listeners.get(address)
        if listening is None or not listening[0].alive or not self.loop.current.alive:
            return None
        process, accept = listening
        here, there = End(self, self.loop.current), End(self, process)
        here.peer, there.peer = there, here
        self._ends[here] = self._ends[there] = None
        self.loop.call_in(process, self.arrival(here), accept, there)
        return here

    # --- traffic ----------------------------------------------------------------------------

    def forget(self, end: End) -> None:
        self._ends.pop(end, None)

    def arrival(self, sender: End) -> float:
        """When what leaves this end now is at the other, after all that left before."""
        chance, to = self._random.random(), sender.peer
        when_s = self.loop.now_s + 0.0002 + 0.0018 * chance
        if chance > 0.98:
            when_s += 50 * 0.002 * self._random.random()
        if self._held:
            pair = frozenset((sender.process.name, to.process.name))
            when_s = max(when_s, self._held.get(pair, 0.0))
        if when_s < to.last_at_s:
            return to.last_at_s
        to.last_at_s = when_s
        return when_s

    # --- trouble ----------------------------------------------------------------------------

    def reset(self, one: str, other: str) -> int:
        """Breaks every connection between two processes; what is under way on them is lost."""
        return self._break(lambda end: {end.process.name, end.peer.process.name} == {one, other})

    def gone(self, process: Process) -> None:
        """A process has ended: its peers hear of it."""
        for address in [each for each, (by, _) in self._listeners.items() if by is process]:
            del self._listeners[address]
        self._break(lambda end: end.process is process or end.peer.process is process)

    def hold(self, one: str, other: str, seconds: float) -> None:
        """Nothing arrives between two processes for a while, and everything afterwards."""
        self._held[frozenset((one, other))] = self.loop.now_s + seconds

    def connections(self) -> Mapping[frozenset[str], int]:
        """How many ends there are between pairs of processes."""
        found: dict[frozenset[str], int] = {}
        for end in self._ends:
            pair = frozenset((end.process.name, end.peer.process.name))
            found[pair] = found.get(pair, 0) + 1
        return found

    def _break(self, chosen: Callable[[End], bool]) -> int:
        broken: Iterable[End] = [end for end in self._ends if chosen(end)]
        number = 0
        for end in broken:
            number += 1
            if end.process.alive:
                # Later than anything of the peer's that is under way is thrown away: see `lose`.
                self.loop.call_in(
                    end.process, self.loop.now_s + self._random.uniform(0, 0.01), end.lose
                )
        return number


def _ignore(_: object) -> None:
    """Nobody listens yet."""


def _nothing() -> None:
    """Nobody minds."""
