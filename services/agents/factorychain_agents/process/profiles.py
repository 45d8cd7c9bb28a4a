"""What each agent's processes are confined to, from what its class declares and the operator allows.

Agents that declare the same share a kind of process: an idle one is confined completely, and whichever of
them is asked for next runs in it. So handing over a run costs one message, and there are as few idle
processes as there are kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from factorychain._instance import model_access
from factorychain._instance.needs import Needs
from factorychain._sandbox import Confinement, InvalidConfinement, compose_environment
from factorychain._sandbox.libraries import library_paths

_POOLS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
SINGLE_THREADED: Final = {**dict.fromkeys(_POOLS, "1"), "TOKENIZERS_PARALLELISM": "false"}
"""Native libraries that would start threads when they are imported."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows any agent."""

    memory_bytes: int
    cpu_s: float
    open_files: int = 256
    file_bytes: int = 64 * 1024 * 1024
    nice: int = 10
    processes: bool = False
    private_paths: tuple[str, ...] = ()
    """What no agent may read, whatever it declares."""
    required: frozenset[str] = frozenset()
    """Features of the kernel without which no agent is to run."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of process."""

    confinement: str
    """A `Confinement` as JSON; the directory is a placeholder."""
    cpu_s: float


def kind_of(
    needs: Needs,
    allowed: Allowed,
    shared: str,
    environment: Mapping[str, str],
    gateway_url: str = "",
) -> Kind:
    """The kind of process that an agent's runs need.

    Args:
        needs: what the agent declares.
        allowed: the operator's limits.
        shared: where the zygote puts what it builds for all runs.
        environment: the operator's, of which the agent sees what it declares.
        gateway_url: of the model gateway, which every run may reach; empty if there is none.

    Raises:
        InvalidConfinement: what it declares is not allowed; the text names the attribute.
    """
    if needs.processes and not allowed.processes:
        raise InvalidConfinement(
            "processes: the operator allows agents to start no other processes"
        )
    cpu_s = _within(needs.cpu_s, allowed.cpu_s)
    own = compose_environment({**environment, **SINGLE_THREADED}, needs.env, "/")
    ports = set(needs.network_ports)
    if gateway_url:
        own = model_access.environment(gateway_url, besides=needs.env) | own
        ports.add(urlsplit(gateway_url).port or 80)
    confinement = Confinement(
        directory="/",
        environment=dict(sorted(own.items())),
        read_paths=tuple(sorted({*needs.read_paths, shared})),
        private_paths=allowed.private_paths,
        connect_ports=tuple(sorted(ports)),
        processes=needs.processes,
        memory_bytes=int(_within(needs.memory_bytes, allowed.memory_bytes)),
        cpu_s=cpu_s,
        open_files=allowed.open_files,
        file_bytes=allowed.file_bytes,
        processes_nice=allowed.nice,
        require=allowed.required,
    )
    return Kind(confinement.to_json(), cpu_s)


def importing(kind: Kind) -> Kind:
    """The kind of process that imports its agent when it is confined already.

    What this process has imported the agent's module from is readable there. The process itself could not
    tell: of folders without an `__init__.py` only the loaded modules say that they are packages.

    Raises:
        InvalidConfinement: a module lies where no agent may read.
    """
    found = Confinement.from_json(kind.confinement)
    wider = replace(found, read_paths=(*found.read_paths, *library_paths()))
    return replace(kind, confinement=wider.to_json())


def _within(declared: float, most: float) -> float:
    return min(declared, most) if declared else most
