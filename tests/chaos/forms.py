"""The two forms that a chain is broken in: as `factorychain up` starts it, and as it is scaled out.

Invariant: a part has the name of its layer, with the number of the replica behind it if there are several:
`engine`, `engine-1`, `agents→emitter`, `agents→emitter-1` (whoever calls replica 1 of the emitter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.chaos.links import LINKS, Link
from tests.e2e.sizes import NODES, REPLICAS

LAYERS: Final = ("engine", "agents", "emitter", "bridge", "nats")


@dataclass(frozen=True, slots=True)
class Form:
    """What there is to break."""

    name: str
    processes: tuple[str, ...]
    links: tuple[str, ...]
    stores: tuple[str, ...]
    """Processes whose store may be on a disk of its own, which can be filled."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Everything that can be broken."""
        return (*self.processes, *self.links)


def layer_of(part: str) -> str:
    """The name without the replica's number."""
    return part.partition("-")[0]


def has_replicas(part: str) -> bool:
    """Whether it is one of several."""
    return "-" in part


def process_hit(where: str) -> str:
    """The process that has less to do if this is broken: of a link, whom it leads to."""
    return where.rpartition("→")[2]


def layer_hit(where: str) -> str:
    """The layer that has one replica less if this is broken; an edge is its bridge's."""
    layer = layer_of(process_hit(where))
    return "bridge" if layer == "edge" else layer


def replicas_of(target: str) -> int:
    """How many listen, where there are several."""
    return NODES if target == "nats" else REPLICAS


def _of_each(link: Link) -> list[str]:
    return [f"{link.name}-{index}" for index in range(replicas_of(link.target))]


SINGLE: Final = Form("single", LAYERS, tuple(each.name for each in LINKS), stores=("nats",))
REPLICATED: Final = Form(
    "replicated",
    tuple(f"{layer}-{index}" for layer in LAYERS for index in range(replicas_of(layer))),
    tuple(name for link in LINKS for name in _of_each(link)),
    stores=tuple(f"nats-{index}" for index in range(replicas_of("nats"))),
)
FORMS: Final = {each.name: each for each in (SINGLE, REPLICATED)}
