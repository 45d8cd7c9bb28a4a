"""What the agents service and its zygote tell each other: one JSON object a packet, with descriptors.

A `SOCK_SEQPACKET` pair: a packet is whole or not there, so that the zygote and the short-lived processes
that it forks from can write to the same end.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson

from factorychain.input import Json

PACKET_MAX_BYTES: Final = 128 * 1024
_DESCRIPTORS_MAX: Final = 4
WORDS_SUFFIX: Final = ".stderr"


@dataclass(frozen=True, slots=True)
class AgentSource:
    """Where an agent's class is."""

    name: str
    module: str
    qualname: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process that runs agents is prepared with."""

    path: tuple[str, ...]
    """`sys.path` of the service."""
    environment: Mapping[str, str]
    """What all its agents together declare; each run process gets its own agent's part alone."""
    agents: tuple[AgentSource, ...]
    later: tuple[AgentSource, ...] = ()
    """Agents that are imported when a run of another one asks for them."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Agents that cannot be run inside of a run here, and why."""

    def to_json(self) -> dict[str, object]:
        return {"setup": asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Setup:
        found = orjson.loads(orjson.dumps(fields["setup"]))
        agents, later = (
            tuple(AgentSource(**each) for each in found[name]) for name in ("agents", "later")
        )
        path, environment, elsewhere = found["path"], found["environment"], found["elsewhere"]
        return cls(tuple(path), environment, agents, later, elsewhere)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run process works."""

    id: int
    """The service's number for it."""
    directory: str
    """The process makes it, and in it a folder to work in, which alone it can write.

    That folder's name the process draws itself: this one's is in the memory of those that are forked at
    the same time.
    """

    @property
    def path(self) -> Path:
        return Path(self.directory)

    def words(self) -> Path | None:
        """The file with what libraries, or a crashing interpreter, wrote to stderr; None if it never got so far."""
        return next(self.path.glob(f"*{WORDS_SUFFIX}"), None)


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Run processes to fork, all confined alike."""

    places: tuple[Place, ...]
    confinement: str
    """`factorychain._sandbox.Confinement` as JSON; the directory is each one's own."""

    def to_json(self) -> dict[str, object]:
        return {"places": [asdict(each) for each in self.places], "confinement": self.confinement}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> ForkRequest:
        found = orjson.loads(orjson.dumps(fields))
        return cls(tuple(Place(**each) for each in found["places"]), found["confinement"])


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a process that runs agents says when it is ready for them."""

    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of what each agent misses; empty for one that can start."""
    unforkable: Mapping[str, str] = field(default_factory=dict)
    """Agents that cannot be run in a fork, and why; if there are any, it is of no use and ends."""

    def to_json(self) -> dict[str, object]:
        return {"prepared": asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Prepared:
        return cls(**orjson.loads(orjson.dumps(fields["prepared"])))


def send(end: socket.socket, message: Mapping[str, Json | object], fds: Sequence[int] = ()) -> None:
    """Send one message, waiting for room if the socket blocks.

    Raises:
        OSError: the other side is gone, or has no room and the socket does not block.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([orjson.dumps(message)], ancillary)


def receive(end: socket.socket) -> tuple[dict[str, Json], list[int]] | None:
    """The next message and the descriptors with it; None when the other side is gone.

    Raises:
        BlockingIOError: there is none now, and the socket does not block.
    """
    size = socket.CMSG_SPACE(_DESCRIPTORS_MAX * array.array("i").itemsize)
    try:
        data, ancillary, _, _ = end.recvmsg(PACKET_MAX_BYTES, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data:
        close(fds)
        return None
    return orjson.loads(data), list(fds)


def close(fds: Sequence[int]) -> None:
    """Close descriptors that came with a message."""
    for each in fds:
        with contextlib.suppress(OSError):
            os.close(each)
