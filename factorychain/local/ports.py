"""Free TCP ports that stay free until their service binds them.

Internal ports are taken below the kernel's ephemeral range (32768 and up on Linux), because a port from
that range can be taken by any outgoing connection between the moment it was found free and a restart of
its service.
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


def free_ports(count: int, choose: random.Random | None = None) -> list[int]:
    """`count` different free ports.

    Raises:
        NoFreePort: if the machine has too few.
    """
    chooser = choose or random.SystemRandom()
    found: list[int] = []
    for _ in range(_TRIES * count):
        port = chooser.randint(_FIRST, _LAST)
        if port not in found and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise NoFreePort(f"found only {len(found)} of {count} free ports on 127.0.0.1")
