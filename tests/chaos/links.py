"""The connections of a chain that can be broken: between which two, and who is told where the other is.

Invariant: every way that a run's request or its events take leads over one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of calls between two parts of a chain."""

    caller: str
    """The process that connects; `client` is the users."""
    target: str
    """The process that listens; `edge` is the bridge's port for clients."""
    variables: tuple[tuple[str, str], ...] = ()
    """Process and variable (without prefix) that hold the target's address."""

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.caller}→{self.target}"


LINKS: Final = (
    Link("client", "edge"),
    Link("edge", "engine", (("bridge", "ENGINE_ADDRESS"),)),
    # A run that was accepted is followed at the address that its replica gave.
    Link("engine", "agents", (("engine", "AGENTS_ADDRESS"), ("agents", "ADVERTISE_ADDRESS"))),
    Link("engine", "emitter", (("engine", "EMITTER_ADDRESS"),)),
    Link("agents", "engine", (("agents", "ENGINE_ADDRESS"),)),
    Link("agents", "emitter", (("agents", "EMITTER_ADDRESS"),)),
    Link("emitter", "bridge", (("emitter", "BRIDGE_ADDRESS"),)),
    Link("engine", "nats", (("engine", "NATS_URL"),)),
    Link("bridge", "nats", (("bridge", "NATS_URL"),)),
)
BY_NAME: Final = {each.name: each for each in LINKS}
