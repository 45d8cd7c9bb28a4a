"""Free TCP ports that stay free until their service binds them.

Internal ports are taken below the kernel's ephemeral range (32768 and up on Linux), because a port from
that range can be taken by any outgoing connection between the moment it was found free and a restart of
its service. Several chains may start at once on one machine: a port that one has chosen is held until it
ends, by a socket that is bound and never listens. Linux lets a server bind beside it, since both say
SO_REUSEADDR; whoever looks for a port here does not say so, and finds it taken.
"""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 31_999
_TRIES = 200


class NoFreePort(OSError):
    """No free port was found on the loopback interface."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could bind the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return True
        except OSError:
            return False


def hold_ports(count: int, choose: random.Random | None = None) -> list[socket.socket]:
    """Sockets that hold `count` different free ports until they are closed.

    Raises:
        NoFreePort: if the machine has too few.
    """
    chooser = choose or random.SystemRandom()
    held: list[socket.socket] = []
    for _ in range(_TRIES * count):
        found = _hold(chooser.randint(_FIRST, _LAST))
        if found is not None:
            held.append(found)
        if len(held) == count:
            return held
    for each in held:
        each.close()
    raise NoFreePort(f"found only {len(held)} of {count} free ports on 127.0.0.1")


def free_ports(count: int, choose: random.Random | None = None) -> list[int]:
    """`count` different ports that are free, and not held, at this moment.

    Raises:
        NoFreePort: if the machine has too few.
    """
    held = hold_ports(count, choose)
    found = [port_of(each) for each in held]
    for each in held:
        each.close()
    return found


def port_of(held: socket.socket) -> int:
    """The port that a socket holds."""
    port: int = held.getsockname()[1]
    return port


def _hold(port: int) -> socket.socket | None:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return None
    # Said only now: until here it would have been bound beside another holder.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return holder
