"""Confines the current process to what one agent's run may do.

Invariant: it only takes away. Nothing here gives a process anything that it did not have, everything
holds for its threads and children too, and none of it can be undone from inside. Standard library
only, so that a process that will be forked from may import it.

It contains buggy or prompt-injected code. For code that is hostile from the start use a container
runtime with a kernel of its own (gVisor, Kata).
"""

from __future__ import annotations

from factorychain._sandbox.applying import confine, prepare
from factorychain._sandbox.confinement import (
    Applied,
    CannotConfine,
    Confinement,
    Feature,
    InvalidConfinement,
)
from factorychain._sandbox.environment import compose_environment
from factorychain._sandbox.hints import hint
from factorychain._sandbox.support import Support, probe

__all__ = [
    "Applied",
    "CannotConfine",
    "Confinement",
    "Feature",
    "InvalidConfinement",
    "Support",
    "compose_environment",
    "confine",
    "hint",
    "prepare",
    "probe",
]
