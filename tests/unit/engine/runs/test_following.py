"""How an engine follows a run whose stream from agents breaks again and again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from factorychain._core.ids import Principal
from factorychain.agents.v1.agents_pb2 import RunAccepted
from factorychain.errors import ChainDegraded
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.lifeline import LifeLimits, Sign
from factorychain_engine.retry import HEALTHY_AFTER_S
from factorychain_engine.runs import supervised_run as supervised_run_module
from factorychain_engine.runs.supervised_run import SupervisedRun

LIMITS = LifeLimits(idle_s=600, lost_s=600, cancel_grace_s=20)
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
    agents_boot="b",
)
ENDED = object()


class Life:
    """Says that the run lives, `after_s` after it was taken, and breaks."""

    accepted = RunAccepted(address="agents:1", boot_id="b")

    def __init__(self, layer: Layer, after_s: float) -> None:
        self._layer, self._after_s, self._said = layer, after_s, False

    async def next_sign(self) -> Sign | None:
        if self._said:
            self._layer.now_s += 60  # silence counts for nothing
            raise ChainDegraded("agents")
        self._said = True
        self._layer.now_s += self._after_s
        return Sign()

    def close(self) -> None: ...


class Layer:
    """Agents, and the log in which the run has ended after the last of its streams."""

    def __init__(self, *after_s: float) -> None:
        self.now_s = 0.0
        self._left = list(after_s)

    async def attach(self, *_: object) -> Life:
        return Life(self, self._left.pop(0))

    async def of_place(self, *_: object) -> object:
        return None if self._left else ENDED


class Pauses:
    """Stands for `Backoff`, and sleeps not."""

    made: list[str]

    def reset(self) -> None:
        self.made.append("anew")

    async def pause(self) -> None:
        self.made.append("pause")


async def followed(monkeypatch: pytest.MonkeyPatch, *after_s: float) -> list[str]:
    layer, pauses = Layer(*after_s), Pauses()
    pauses.made = []
    monkeypatch.setattr(supervised_run_module, "Backoff", lambda: pauses)
    anything = cast("Any", SimpleNamespace())
    run = SupervisedRun(
        Principal("acme", "ada"),
        ENTRY,
        agents=cast("Any", layer),
        tokens=anything,
        outcomes=cast("Any", layer),
        settler=anything,
        attempts=anything,
        on_again=lambda _: None,
        limits=LIMITS,
        context=cast("Any", SimpleNamespace(expires_at_s=1e9)),
        clock=lambda: layer.now_s,
    )
    assert await run.finish() is cast("Any", ENDED)
    return pauses.made


async def test_one_sign_of_life_does_not_begin_pauses_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await followed(monkeypatch, 0.0, 0.0, 0.0) == ["pause"] * 3


async def test_a_run_that_was_heard_for_a_while_is_attached_to_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await followed(monkeypatch, 0.0, HEALTHY_AFTER_S, 0.0)
    assert made == ["pause", "pause", "anew"]
