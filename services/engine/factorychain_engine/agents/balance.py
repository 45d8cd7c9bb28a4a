"""Which replica of the agents layer gets the next run.

Invariant: a replica that takes no runs, or has no room by what is known, is not asked; one of which
nothing is known is. What this engine has sent there counts once: a replica that says how much it has may
have counted what it has not answered for yet. One that did not answer lately is asked only if no other
takes runs, and its room is not known. Of those with room two are drawn and the one with less to do is
taken, so that engines which know the same do not all choose the same. Pure: the drawing is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

UNKNOWN_ROOM_IN_S: Final = 1.0
"""What a replica that has refused for lack of room is good for, if it did not say."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica said of itself."""

    boot: str
    running: int
    capacity: int
    accepting: bool
    room_in_s: float = 0.0


_NOTHING_SAID: Final = Load("", 0, 0, accepting=True)


@dataclass(slots=True)
class _Replica:
    """What is known of one."""

    load: Load | None = None
    silent: bool = False
    """It did not answer when it was asked last."""
    since: int = 0
    """Runs of this engine that have come there since it said how much it has, less those that ended."""
    asked: int = 0
    """Runs that it was asked to take and has not answered for."""
    counted: int = 0
    """Those of `asked` that may be in `load` already: they were on their way when it said that."""

    def said(self, load: Load) -> None:
        self.load, self.since, self.counted = load, 0, self.asked

    def said_nothing(self) -> None:
        self.load, self.counted = None, 0

    def answered(self, *, took: bool) -> None:
        self.asked = max(0, self.asked - 1)
        if self.counted:
            self.counted -= 1
        else:
            self.since += took

    def running(self) -> int:
        said = 0 if self.load is None else self.load.running
        return max(0, said + self.since) + self.asked - self.counted

    def free(self) -> int | None:
        """Places; None: not known."""
        if self.load is None:
            return None
        free = max(0, self.load.capacity - self.running())
        return None if self.silent and free else free

    def share(self) -> float:
        """How much of it is taken, 0 to 1."""
        capacity = 0 if self.load is None else self.load.capacity
        return self.running() / capacity if capacity else float(self.running() > 0)


@dataclass(frozen=True, slots=True)
class Order:
    """Whom to ask for a place, one after the other."""

    addresses: tuple[str, ...]
    room_in_s: float | None
    """If there is nobody to ask: when there is likely to be room; None: no replica is there."""


class Balance:
    """The replicas of the layer, by address."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        """`draw(n)` gives a whole number from 0 to below n."""
        self._draw = draw
        self._replicas: dict[str, _Replica] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._replicas)

    def resolved(self, addresses: Collection[str]) -> None:
        """These are the layer's now."""
        self._replicas = {each: self._replicas.get(each) or _Replica() for each in addresses}

    # --- what is heard ----------------------------------------------------------------------

    def heard(self, address: str, load: Load) -> None:
        """A replica has said how much it has."""
        replica = self._replicas.get(address)
        if replica is not None:
            replica.silent = False
            replica.said(load)

    def silent(self, address: str) -> None:
        """A replica did not answer. One that took no runs may take some by now."""
        replica = self._replicas.get(address)
        if replica is None:
            return
        replica.silent = True
        if not self._accepts(address):
            replica.said_nothing()

    def unmeasured(self, address: str) -> None:
        """A replica cannot say, or it is not known which process is there now."""
        replica = self._replicas.get(address)
        if replica is not None:
            replica.silent = False
            replica.said_nothing()

    def asked(self, address: str) -> None:
        """A replica is asked to take a run."""
        replica = self._replicas.get(address)
        if replica is not None:
            replica.asked += 1

    def answered(self, address: str, *, took: bool) -> None:
        """It took it; or it did not, or nobody knows."""
        replica = self._replicas.get(address)
        if replica is not None:
            replica.answered(took=took)

    def left(self, address: str) -> None:
        """A run that it took is over."""
        replica = self._replicas.get(address)
        if replica is not None:
            replica.since -= 1

    def refused_full(self, address: str, room_in_s: float | None) -> None:
        """It has just refused for lack of room."""
        replica = self._replicas.get(address)
        if replica is None:
            return
        load = replica.load or _NOTHING_SAID
        said_s = UNKNOWN_ROOM_IN_S if room_in_s is None else room_in_s
        replica.said(
            Load(load.boot, load.capacity, load.capacity, accepting=True, room_in_s=said_s)
        )

    def refused_all(self, address: str) -> None:
        """It has just refused because it takes no runs now."""
        replica = self._replicas.get(address)
        if replica is not None:
            load = replica.load or _NOTHING_SAID
            replica.load = Load(load.boot, load.running, load.capacity, accepting=False)

    # --- what follows -----------------------------------------------------------------------

    def order(self, connected: Callable[[str], bool]) -> Order:
        """Whom to ask."""
        taking = self._taking(connected)
        with_room = [each for each in taking if self._replicas[each].free() != 0]
        if with_room or not taking:
            return Order(tuple(self._drawn(with_room)), None)
        said = [load.room_in_s for each in taking if (load := self._replicas[each].load)]
        return Order((), min(each or UNKNOWN_ROOM_IN_S for each in said))

    def room(self, connected: Callable[[str], bool]) -> int | None:
        """Places that are free in all; None: some replica's are not known."""
        free = [self._replicas[each].free() for each in self._taking(connected)]
        return None if None in free else sum(each for each in free if each is not None)

    def _taking(self, connected: Callable[[str], bool]) -> list[str]:
        """Those that take runs. One that did not answer lately may hang, so what it was known to have
        room for is not counted on while there are others.
        """
        taking = [each for each in self._there(connected) if self._accepts(each)]
        return [each for each in taking if not self._replicas[each].silent] or taking

    def _accepts(self, address: str) -> bool:
        load = self._replicas[address].load
        return load is None or load.accepting

    def _there(self, connected: Callable[[str], bool]) -> list[str]:
        """One address of each process: a name may lead to it in two ways, as localhost does."""
        found: dict[str, str] = {}
        for address, replica in self._replicas.items():
            if connected(address):
                boot = "" if replica.load is None else replica.load.boot
                found.setdefault(boot or address, address)
        return list(found.values())

    def _drawn(self, addresses: list[str]) -> list[str]:
        """Two are drawn, the one with less to do goes first; the others by what they have to do."""
        if len(addresses) < 2:
            return addresses
        first = self._draw(len(addresses))
        second = self._draw(len(addresses) - 1)
        second += second >= first
        pair = sorted((addresses[first], addresses[second]), key=self._share)
        others = [each for each in addresses if each not in pair]
        return [pair[0], *sorted([pair[1], *others], key=self._share)]

    def _share(self, address: str) -> float:
        return self._replicas[address].share()
