"""Frames in the protocol document are frames: the edge reads the client's, ours are of our events."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from factorychain._core.event_json import event_object
from factorychain.errors import FactoryChainError, error_class
from factorychain_bridge.edge.frames import parse
from factorychain_bridge.edge.outputs import CloseCode, SessionLimits
from factorychain_bridge.items import ResetReason
from tests.event_reader import event_from_json
from tests.unit.docs.documents import ROOT, blocks

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
LINES = [
    line
    for block in blocks("text")
    if block.path.name == "protocol.md"
    for line in block.text.splitlines()
]
SENT = [line.removeprefix("→ ") for line in LINES if line.startswith("→ ")]
RECEIVED: list[dict[str, Any]] = [
    json.loads(line.removeprefix("← ")) for line in LINES if line.startswith("← ")
]
EVENTS = [event for frame in RECEIVED for event in frame.get("events", [])]


def test_every_line_is_a_frame_in_one_direction() -> None:
    assert len(SENT) + len(RECEIVED) == len(LINES)


@pytest.mark.parametrize("frame", SENT)
def test_the_edge_reads_what_the_client_sends(frame: str) -> None:
    parse(frame)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event['type']}-{event['seq']}")
def test_an_event_has_the_fields_that_the_edge_gives_it(event: dict[str, Any]) -> None:
    made = event_object(event_from_json(event), event["seq"], event["run"])
    rendered = json.loads(orjson.dumps(made))
    assert set(event) == set(rendered)
    assert set(event["data"]) == set(rendered["data"])


def test_the_five_events_are_shown() -> None:
    assert {each["type"] for each in EVENTS} >= {
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
        "message_delta",
        "agent_cancelled",
        "input_requested",
        "input_received",
    }


@pytest.mark.parametrize("frame", [each for each in RECEIVED if "error" in each])
def test_an_error_has_the_code_of_its_reason(frame: dict[str, Any]) -> None:
    error = frame["error"]
    kind = error_class(error["reason"])
    assert kind is not FactoryChainError
    assert error["code"] == kind.default_code.value


def test_the_limits_and_codes_are_those_of_the_edge() -> None:
    ready = next(each for each in RECEIVED if each["op"] == "ready")
    assert ready["limits"] == SessionLimits().shown()
    assert ready["heartbeat_s"] == SessionLimits().heartbeat_s
    assert all(str(int(code)) in DOCUMENT for code in CloseCode)
    assert all(reason.value in DOCUMENT for reason in ResetReason)
