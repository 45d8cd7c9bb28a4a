"""A graph's own stream against what its user gets: every event of the one is one of the other."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import AIMessageChunk

from tests.e2e.chain import running_chain
from tests.e2e.sockets import connected
from tests.vendor import Call, Turn, Vendor
from tests.vendor.script import Received

KINDS: Final = ("message_delta", "tool_executing", "tool_completed", "custom")
_MODULE: Final = "tests.e2e.graphs"
_PAUSE_S: Final = 0.02
"""Between a model's tokens: what comes faster may travel as one event."""
_WORDS: Final = [f"word{index} " for index in range(20)]


def _speak(request: Received) -> Turn:
    """Two calls at once, then twenty words."""
    if request.messages[-1]["role"] == "tool":
        return Turn(text=_WORDS, gap_s=_PAUSE_S)
    calls = [Call("carry", {"text": text}) for text in ("one", "two")]
    return Turn(text=["Let ", "me ", "see"], calls=calls, gap_s=_PAUSE_S)


async def counted(runs: int) -> dict[str, tuple[int, int]]:
    """Events by kind: in the graph's own streams, and on the socket, of as many runs each."""
    async with Vendor() as vendor:
        vendor.always = _speak
        own = await _own(vendor, runs)
        ours = await _ours(vendor, runs)
    return {kind: (own[kind], ours[kind]) for kind in KINDS}


async def _own(vendor: Vendor, runs: int) -> Counter[str]:
    os.environ |= {"OPENAI_BASE_URL": vendor.openai_url, "OPENAI_API_KEY": vendor.key}
    graph: Any = import_module(_MODULE).nested
    found: Counter[str] = Counter()
    for _ in range(runs):
        stream = graph.astream(
            {"messages": [("user", "go")]},
            stream_mode=["messages", "tools", "custom"],
            subgraphs=True,
            version="v2",
        )
        async for part in stream:
            found[_kind(part)] += 1
    return found


def _kind(part: dict[str, Any]) -> str:
    if part["type"] == "messages":
        message = part["data"][0]
        return "message_delta" if isinstance(message, AIMessageChunk) and message.text else ""
    if part["type"] == "tools":
        return "tool_executing" if part["data"]["event"] == "tool-started" else "tool_completed"
    return str(part["type"])


async def _ours(vendor: Vendor, runs: int) -> Counter[str]:
    env = {
        "FACTORYCHAIN_LLM_BASE_URL": vendor.openai_url,
        "FACTORYCHAIN_LLM_API_KEY": vendor.key,
    }
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="factorychain-bench-") as folder:
        given = ("--agents", f"{_MODULE}:nested")
        async with (
            running_chain(Path(folder), given, env) as chain,
            connected(chain.state.edge, chain.token("counter")) as socket,
        ):
            for _ in range(runs):
                started = await socket.start("nested", "go")
                await socket.ending(started["run"])
                found.update(each["type"] for each in socket.run_events(started["run"]))
    return found
