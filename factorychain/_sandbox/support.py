"""What this kernel can confine by, found out without confining anything."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from factorychain._sandbox import landlock, seccomp
from factorychain._sandbox.confinement import Feature

_SINCE = {
    Feature.LANDLOCK: 1,
    Feature.LANDLOCK_TRUNCATE: 3,
    Feature.LANDLOCK_NETWORK: 4,
    Feature.LANDLOCK_DEVICES: 5,
    Feature.LANDLOCK_SCOPES: 6,
}
_WITHOUT = {
    Feature.LANDLOCK: "agents can read and write every file of the services' user "
    "(Linux 5.13 with `landlock` among its security modules has it)",
    Feature.LANDLOCK_TRUNCATE: "agents cannot truncate a file by its name (Linux 6.2 can rule it)",
    Feature.LANDLOCK_NETWORK: "agents that declare a TCP port can connect to all (Linux 6.7)",
    Feature.LANDLOCK_DEVICES: "commands to devices that an agent may read are not ruled (Linux 6.10)",
    Feature.LANDLOCK_SCOPES: "agents that may start processes can signal others of the services' "
    "user (Linux 6.12)",
    Feature.SECCOMP: "agents can use every system call, Unix and datagram sockets, and start "
    "processes without end (Linux with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64)",
}


@dataclass(frozen=True, slots=True)
class Support:
    """What there is."""

    landlock_abi: int
    """0: none."""
    seccomp: bool

    @property
    def missing(self) -> tuple[Feature, ...]:
        without = [feature for feature, since in _SINCE.items() if self.landlock_abi < since]
        return (*without, *(() if self.seccomp else (Feature.SECCOMP,)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """For the operator: of each missing feature what does not hold, and where it is found."""
        return tuple(f"no {feature}: {_WITHOUT[feature]}" for feature in self.missing)


@cache
def probe() -> Support:
    """Asks the kernel, once; changes nothing."""
    return Support(landlock_abi=landlock.kernel_abi(), seccomp=seccomp.supported())
