"""The public surface, and what importing it brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest

import factorychain

SURFACE = [
    "Agent",
    "AgentError",
    "Client",
    "Credential",
    "FilePart",
    "ImagePart",
    "Input",
    "InputTimeout",
    "Interrupt",
    "MCPServer",
    "MessageStream",
    "PastRun",
    "Request",
    "RunContext",
    "TextPart",
    "ThinkingStream",
    "ToolError",
    "Usage",
    "shared",
    "tool",
]
CONTEXT = {
    *("tenant", "user", "thread", "run_id", "attempt", "input", "context", "metadata", "deadline"),
    *(
        "usage",
        "think",
        "say",
        "message",
        "thinking",
        "emit",
        "progress",
        "call",
        "tools",
        "history",
        "credential",
        "wait",
    ),
    *("state", "resume", "ask", "approve", "run"),
}


def test_the_surface_is_what_it_was() -> None:
    assert factorychain.__all__ == SURFACE
    assert all(getattr(factorychain, name) is not None for name in SURFACE)
    assert set(SURFACE) <= set(dir(factorychain))


def test_the_context_has_what_it_had_and_nothing_more() -> None:
    shown = {name for name in vars(factorychain.RunContext) if not name.startswith("_")}
    assert shown == CONTEXT


def test_the_client_is_that_of_its_module_whatever_was_imported_before() -> None:
    import factorychain.client

    assert factorychain.Client is factorychain.client.Client


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Agnet'"):
        _ = factorychain.Agnet


def test_tool_is_the_decorator_whatever_was_imported_before() -> None:
    import factorychain.tools

    assert factorychain.tool is factorychain.tools.tool


def test_what_agents_import_brings_no_grpc_no_nats_and_no_telemetry() -> None:
    # In a process of its own: others of these tests import them.
    code = (
        "import sys, factorychain.testing, factorychain.builtin.researcher\n"
        "import factorychain as fc\n"
        "[getattr(fc, name) for name in fc.__all__ if name != 'Client']\n"
        "import factorychain._instance.runner\n"
        "barred = {'grpc', 'nats', 'aiohttp', 'opentelemetry', 'structlog'}\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & barred))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
