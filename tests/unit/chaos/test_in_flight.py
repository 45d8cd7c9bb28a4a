"""A fault counts only if the part that it hit had runs of its own at that moment."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from factorychain._core.metrics import REGISTRY
from tests.chaos.driver import Injected
from tests.chaos.faults import CUT, FREEZE, KILL, KINDS, Fault
from tests.chaos.forms import LAYERS, process_hit
from tests.chaos.in_flight import GAUGES, runs_said


def said(service: str, **instruments: float) -> bytes:
    record = {"event": "statistics", "service": service, "instruments": instruments}
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_a_part_without_runs_does_not_count(kind: str) -> None:
    fault = Fault(kind, "emitter-1")
    assert not Injected(fault, 0.0, runs=0).counts
    assert Injected(fault, 0.0, runs=1).counts
    assert not Injected(fault, 0.0, runs=1, hit=False).counts


@pytest.mark.parametrize(
    ("fault", "process"),
    [
        (Fault(KILL, "agents-1"), "agents-1"),
        (Fault(FREEZE, "engine"), "engine"),
        (Fault(CUT, "agents→emitter-1"), "emitter-1"),
        (Fault(CUT, "bridge→nats"), "nats"),
    ],
)
def test_a_link_has_the_runs_of_whom_it_leads_to(fault: Fault, process: str) -> None:
    assert process_hit(fault.where) == process


def test_every_layer_has_a_gauge_that_its_service_has_too() -> None:
    assert set(GAUGES) == set(LAYERS) - {"nats"}
    for layer in GAUGES:
        importlib.import_module(f"factorychain_{layer}.server")
    kinds = {each.described.name: each.described.kind for each in REGISTRY}
    assert {each: kinds.get(each) for each in GAUGES.values()} == dict.fromkeys(
        GAUGES.values(), "up_down_counter"
    )


def test_what_a_process_says_is_read_once_it_has_said_it_whole(tmp_path: Path) -> None:
    log = tmp_path / "chain.log"
    before = said("emitter", **{GAUGES["emitter"]: 9})
    other = said("engine", **{GAUGES["engine"]: 7})
    own = said("emitter", **{GAUGES["emitter"]: 2.0})
    log.write_bytes(before + b"a line of text\n" + other + own[:-5])
    assert runs_said(log, len(before), "emitter-1") is None
    log.write_bytes(before + other + own)
    assert runs_said(log, len(before), "emitter-1") == 2
    assert runs_said(log, len(before), "engine") == 7


def test_a_process_that_never_had_a_run_has_none(tmp_path: Path) -> None:
    log = tmp_path / "chain.log"
    log.write_bytes(said("agents"))
    assert runs_said(log, 0, "agents") == 0
