"""An attempt is followed once more only at the process that has accepted it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from factorychain._core.ids import Principal
from factorychain.agents.v1.agents_pb2 import RunAccepted
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.lifeline import EndReason, LifeLimits
from factorychain_engine.runs.at_agents import AtAgents, Reach

ENTRY = ActiveRun(
    run="r1",
    thread="t1",
    agent="a",
    request_hash="00" * 16,
    owner="me",
    admitted_at_s=0.0,
    deadline_s=3600.0,
    base=0,
    base_seq=0,
    base_epoch=1,
    agents_address="agents:1",
    agents_boot="b1",
)


class Life:
    """Of a run that the process has, as it says."""

    def __init__(self, boot: str) -> None:
        self.accepted = RunAccepted(address="agents:1", boot_id=boot)
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def attached(life: Life) -> AtAgents:
    async def attach(*_: object) -> Life:
        return life

    agents = SimpleNamespace(attach=attach)
    reach = Reach(cast("Any", agents), cast("Any", SimpleNamespace()), lambda: 0.0)
    at = AtAgents(
        Principal("acme", "ada"),
        ENTRY,
        reach,
        LifeLimits(idle_s=600, lost_s=600, cancel_grace_s=20),
        known=True,
        context=cast("Any", SimpleNamespace(expires_at_s=1e9)),
    )
    await at.attach()
    return at


@pytest.mark.parametrize(("boot", "is_lost"), [("b1", False), ("b2", True)])
async def test_another_process_at_its_address_is_not_followed_although_it_has_such_a_run(
    boot: str, is_lost: bool
) -> None:
    life = Life(boot)
    at = await attached(life)
    assert (at.given_up.done(), life.closed) == (is_lost, is_lost)
    assert not is_lost or at.given_up.result() is EndReason.AGENT_LOST
    assert at.boot == "b1"
