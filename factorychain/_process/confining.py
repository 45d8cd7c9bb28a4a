"""The one place where a run process is confined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from factorychain._sandbox import Confinement, confine

_STANDARD: Final = (0, 1, 2)
_PERSONAL: Final = ("HOME", "TMPDIR", "TMP", "TEMP")


def confined(confinement: Confinement, directory: str, keep: Sequence[int]) -> list[str]:
    """Confine this process for good; the names of what the kernel lacks for it.

    Args:
        confinement: that of the agents which may run here; its directory is a placeholder.
        directory: the only place that this process may write.
        keep: descriptors that it talks to the service through.

    Raises:
        CannotConfine: it could not be confined as asked; it must not run an agent.
    """
    own = replace(confinement, directory=directory, keep_descriptors=(*_STANDARD, *keep))
    own.environment.update(dict.fromkeys(_PERSONAL, directory))
    return [str(each) for each in confine(own).missing]
