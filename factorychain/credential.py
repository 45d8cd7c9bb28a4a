"""What an agent uses a service with whose secret it never sees: `ctx.credential("github")`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credential:
    """A service, as the operator lets this run use it.

    Requests go to `base_url` with `headers` (or `key`, where a client library asks for one); on their way
    the run's key, which is worth nothing anywhere else, is replaced by the secret that the operator has
    mapped for this user.
    """

    name: str
    base_url: str
    """In place of the service's own."""
    key: str = field(repr=False)
    """The run's: worth nothing elsewhere, nor after the run."""

    @property
    def headers(self) -> Mapping[str, str]:
        """For clients that are given headers."""
        return {"Authorization": f"Bearer {self.key}"}
