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
TOOLS = {
    "add": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
    "about": NOTHING,
    "remember": NOTHING,
    "hangs": NOTHING,
    "dies": NOTHING,
}
said: list[str] = []


def call(name: str, arguments: dict[str, Any]) -> object:
    """The result of a tool; None: there is no answer yet."""
    if name == "add":
        return arguments["a"] + arguments["b"]
    if name == "about":
        return {"pid": os.getpid(), "env": dict(os.environ), "cwd": str(Path.cwd())}
    if name == "remember":
        said.append(arguments["word"])
        return said
    if name == "dies":
        os._exit(1)
    sys.stderr.write("hanging\n")
    return None


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        told = {"name": "plain", "version": "1"}
        version = params["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": told}
    if method == "tools/list":
        return {"tools": [{"name": n, "inputSchema": each} for n, each in TOOLS.items()]}
    found = call(params["name"], params.get("arguments") or {})
    if found is None:
        return None
    return {
        "content": [{"type": "text", "text": "as it is"}],
        "structuredContent": {"result": found},
    }


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if request["method"] == "notifications/cancelled":
            sys.stderr.write("cancelled\n")
        if "id" not in request:
            continue
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        if request["method"] in ("initialize", "tools/list", "tools/call"):
            result = answer(request["method"], request.get("params") or {})
            if result is None:
                continue
            reply["result"] = result
        else:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        print(json.dumps(reply), flush=True)


main()
