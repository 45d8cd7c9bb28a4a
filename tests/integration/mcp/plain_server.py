"""An MCP server on standard input and output without a library, which starts in no time.

The protocol of 2025-06-18, as far as tools go (https://modelcontextprotocol.io/specification/2025-06-18).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

NOTHING: dict[str, Any] = {"type": "object"}
SIZE = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
TOOLS = {
    "add": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
    "about": NOTHING,
    "remember": NOTHING,
    "order": NOTHING,
    "hangs": NOTHING,
    "dies": NOTHING,
}
said: list[str] = []
asking: list[Any] = []
"""Ids of the calls that wait for the user's answer."""


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def result(id: Any, found: object) -> None:
    content = [{"type": "text", "text": "as it is"}]
    send(id=id, result={"content": content, "structuredContent": {"result": found}})


def call(id: Any, name: str, arguments: dict[str, Any]) -> None:
    if name == "add":
        result(id, arguments["a"] + arguments["b"])
    elif name == "about":
        result(id, {"pid": os.getpid(), "env": dict(os.environ), "cwd": str(Path.cwd())})
    elif name == "remember":
        said.append(arguments["word"])
        result(id, said)
    elif name == "order":
        asking.append(id)
        params = {"message": "Which size?", "requestedSchema": SIZE}
        send(id="asked", method="elicitation/create", params=params)
    elif name == "dies":
        os._exit(1)
    else:
        sys.stderr.write("hanging\n")


def take(message: dict[str, Any]) -> None:
    id, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if method == "initialize":
        told = {"name": "plain", "version": "1"}
        can = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
        send(id=id, result={**can, "serverInfo": told})
    elif method == "tools/list":
        send(id=id, result={"tools": [{"name": n, "inputSchema": s} for n, s in TOOLS.items()]})
    elif method == "tools/call":
        call(id, params["name"], params.get("arguments") or {})
    elif method == "notifications/cancelled":
        sys.stderr.write("cancelled\n")
    elif method is None:
        result(asking.pop(), message["result"])
    elif id is not None:
        send(id=id, error={"code": -32601, "message": "Method not found"})


for line in sys.stdin:
    take(json.loads(line))
