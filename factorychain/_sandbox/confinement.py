"""What a process is to be confined to, and what came of it: plain data, fit to be sent to a process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import cast


class Feature(StrEnum):
    """What a kernel may lack. Everything else that confinement does, every Linux can."""

    LANDLOCK = "landlock"
    """Files: read what is named, write the own directory."""
    LANDLOCK_TRUNCATE = "landlock_truncate"
    """Truncating is ruled like writing (without it seccomp refuses it altogether)."""
    LANDLOCK_NETWORK = "landlock_network"
    """TCP connections by port (without it an agent with any port reaches all of them)."""
    LANDLOCK_DEVICES = "landlock_devices"
    """Commands to devices."""
    LANDLOCK_SCOPES = "landlock_scopes"
    """No signal and no abstract Unix socket reaches out of the confinement."""
    SECCOMP = "seccomp"
    """System calls that no agent needs, and sockets other than TCP."""


_FEATURES = frozenset(str(each) for each in Feature)


class CannotConfine(Exception):
    """The process could not be confined as asked; it must not run an agent."""

    def __init__(self, feature: str, why: str) -> None:
        super().__init__(f"{feature}: {why}")
        self.feature = feature
        """What failed: a `Feature`, or the step's own name."""


class InvalidConfinement(ValueError):
    """A confinement contradicts itself; the message names the field and how to mend it."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one run's process may have and do."""

    directory: str
    """Its own: the only place it can write; working directory, home and TMPDIR."""
    environment: dict[str, str]
    """All of it (`compose_environment` makes it)."""
    keep_descriptors: tuple[int, ...] = ()
    """What stays open. Of 0, 1 and 2 those not named here are /dev/null."""
    read_paths: tuple[str, ...] = ()
    """Files and folders that it may read, besides the interpreter and its libraries. One that does
    not exist is left out."""
    private_paths: tuple[str, ...] = ()
    """What must never be readable; a `read_paths` entry that holds or lies in one is refused."""
    connect_ports: tuple[int, ...] = ()
    """TCP ports that it may connect to, on any host."""
    processes: bool = False
    """Whether it may start other processes. They are confined like itself, but nothing bounds their
    number, and each has the limits anew."""
    memory_bytes: int = 512 * 1024 * 1024
    """Address space beyond what is mapped when it is confined."""
    cpu_s: float = 300.0
    """Processor time beyond what it has used; then SIGXCPU, a second later SIGKILL."""
    open_files: int = 256
    file_bytes: int = 64 * 1024 * 1024
    """Size of any one file that it writes."""
    processes_nice: int = 10
    """Added to its niceness: its weight against the services."""
    require: frozenset[str] = field(default_factory=frozenset)
    """`Feature`s without which it is not to run."""

    def __post_init__(self) -> None:
        for name in ("directory", "read_paths", "private_paths"):
            value = getattr(self, name)
            for path in (value,) if isinstance(value, str) else value:
                _check(path.startswith("/"), name, f"{path!r} is not an absolute path")
        for port in self.connect_ports:
            _check(0 < port < 65_536, "connect_ports", f"{port} is no TCP port (1 to 65535)")
        for name in ("memory_bytes", "cpu_s", "open_files", "file_bytes"):
            _check(getattr(self, name) > 0, name, "must be above 0")
        _check(0 <= self.processes_nice < 20, "processes_nice", "must be from 0 to 19")
        unknown = sorted(self.require - _FEATURES)
        _check(
            not unknown, "require", f"unknown: {', '.join(unknown)}; {', '.join(Feature)} are known"
        )
        self._check_private()

    def _check_private(self) -> None:
        for private in map(os.path.realpath, self.private_paths):
            for path in self.read_paths:
                real = os.path.realpath(path)
                apart = not (is_within(private, real) or is_within(real, private))
                _check(apart, "read_paths", f"{path} would open {private}; name a narrower path")

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"require": sorted(self.require)})

    @classmethod
    def from_json(cls, text: str) -> Confinement:
        """Reads what `to_json` wrote.

        Raises:
            InvalidConfinement: a value is not allowed.
        """
        values = cast("dict[str, object]", json.loads(text))
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = frozenset(value) if name == "require" else tuple(value)
        return cls(**values)  # type: ignore[arg-type]  # the same version wrote it; __post_init__ looks


def is_within(path: str, folder: str) -> bool:
    """Of real paths: whether it is the folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _check(holds: bool, name: str, why: str) -> None:
    if not holds:
        raise InvalidConfinement(f"{name}: {why}")


@dataclass(frozen=True, slots=True)
class Applied:
    """What confining came to."""

    landlock_abi: int
    """0: the kernel has none."""
    missing: tuple[Feature, ...]
    """What the kernel lacks, so what does not hold."""
