"""What is known of a server of tools: what `MCPServer` was given."""

from __future__ import annotations

from typing import Protocol


class Server(Protocol):
    """A server, and how it is reached; one of `command` and `url` is set."""

    command: str
    args: tuple[str, ...]
    env: dict[str, str] | tuple[str, ...]
    cwd: str
    url: str
    headers: dict[str, str]
    name: str
    prefix: str
    only: tuple[str, ...]
    timeout_s: float | None
    approval: bool | str
    start_timeout_s: float
