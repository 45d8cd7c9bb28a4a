"""Tools of MCP servers (https://modelcontextprotocol.io), listed among an agent's own.

```python
class Clerk(Agent):
    processes = True
    tools = [MCPServer(command="python", args=["-m", "clock_server"])]
```
"""

from __future__ import annotations

import importlib.util
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from factorychain._instance.needs import Needs
from factorychain._instance.tool_source import ToolSource

if TYPE_CHECKING:
    from factorychain._instance.active import ActiveRun
    from factorychain._instance.tool_source import OpenedSource

__all__ = ["MCPServer"]

_PORTS: Final = {"http": 80, "https": 443}


class MCPServer(ToolSource):
    """A server of tools: a program that is started for each run, or one that is reached by HTTP.

    Every run has a connection of its own, made before the agent's `run` is called and closed at the run's
    end. The server's tools are in `ctx.tools` like the agent's; what they are called with is checked
    against their schemas. A server that ends in the middle fails the call, not the run.
    """

    def __init__(
        self,
        *,
        command: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str] | Sequence[str] = (),
        cwd: str | Path = "",
        url: str = "",
        headers: Mapping[str, str] | None = None,
        name: str = "",
        prefix: str = "",
        only: Sequence[str] = (),
        timeout_s: float | None = None,
        approval: bool | str = False,
        start_timeout_s: float = 30.0,
    ) -> None:
        """Give `command` or `url`.

        Args:
            command: the program. The agent's class needs `processes = True`.
            args: its arguments.
            env: its variables, beside a few harmless ones: values, or names of the run's own variables.
            cwd: its working directory; the run's own folder if empty.
            url: where a server with streamable HTTP is. The agent's class needs its port in
                `network_ports`.
            headers: of every request to the URL.
            name: for errors and the log; from the command or the host if empty.
            prefix: goes before the names of its tools, with an underscore.
            only: the server's names of the tools that are wanted; all of them if empty.
            timeout_s: time limit of a call; None: as long as its run.
            approval: the user is asked before every call of them, as with `tool(approval=…)`.
            start_timeout_s: time limit for the connection and the list of tools.

        Raises:
            TypeError: the arguments contradict each other.
            ImportError: the library `mcp` is not installed.
        """
        if bool(command) == bool(url):
            raise TypeError("MCPServer: give one of command and url")
        if url and (args or env or cwd):
            raise TypeError("MCPServer: args, env and cwd belong to a command")
        if command and headers:
            raise TypeError("MCPServer: headers belong to a url")
        self.command = command
        self.args = tuple(args)
        self.env = dict(env) if isinstance(env, Mapping) else tuple(env)
        self.cwd = str(cwd)
        self.url = url
        self.headers = dict(headers or {})
        self.name = name or (Path(command).name if command else urlsplit(url).netloc)
        self.prefix = prefix
        self.only = tuple(only)
        self.timeout_s = timeout_s
        self.approval = approval
        self.start_timeout_s = start_timeout_s
        _load()

    def __repr__(self) -> str:
        return f"MCPServer({self.name!r})"

    def check(self, needs: Needs) -> None:
        if needs.isolation == "task":
            return
        if self.command and not needs.processes:
            raise TypeError(
                f"tools lists {self!r}, which starts a program: set `processes = True` on the class"
            )
        port = _port(self.url) if self.url else 0
        if port and port not in needs.network_ports:
            wanted = (
                f"{port}" if _needs_no_lookup(self.url) else f"{port}, and 53 to look its name up,"
            )
            raise TypeError(f"tools lists {self!r}: add {wanted} to `network_ports` of the class")

    def of(self, run: ActiveRun) -> OpenedSource:
        from factorychain._mcp.connection import Connection

        return Connection(self, run)


def _load() -> None:
    """The library comes along with the agent's module, not with each run."""
    if importlib.util.find_spec("mcp") is None:
        raise ImportError("MCPServer needs the library mcp: pip install 'factorychain[mcp]'")
    importlib.import_module("factorychain._mcp.connection")


def _port(url: str) -> int:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise TypeError(f"MCPServer: {url!r} is no http or https address")
    return parts.port or _PORTS[parts.scheme]


def _needs_no_lookup(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
