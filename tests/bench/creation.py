"""How long it takes to make a run's parts, as the layers recorded it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.chain import Chain
from tests.e2e.held import held

LAYERS = {
    "execution_engine": "engine",
    "agent_instance": "agents",
    "websocket_emitter": "emitter",
    "bridge_integration": "bridge",
    "total": "bridge",
}
_INSTRUMENT = "factorychain.creation.duration{{layer={layer}}}"


@dataclass(frozen=True, slots=True)
class Creation:
    """Time to make one layer's part of a run, over all runs so far, in milliseconds."""

    layer: str
    mean_ms: float
    p50_ms: float
    p99_ms: float
    count: int

    def __str__(self) -> str:
        return f"mean {self.mean_ms:6.2f} ms   p50 ≤ {self.p50_ms:.2f}   p99 ≤ {self.p99_ms:.2f}"


async def creation_times(chain: Chain) -> list[Creation]:
    """What each layer has recorded; percentiles are bucket bounds."""
    found = []
    for layer, service in LAYERS.items():
        summary = (await held(chain, service))["instruments"].get(_INSTRUMENT.format(layer=layer))
        assert summary, f"{service} has recorded no creation"
        ms = {key: summary[key] * 1e3 for key in ("mean", "p50", "p99")}
        found.append(Creation(layer, ms["mean"], ms["p50"], ms["p99"], int(summary["count"])))
    return found


def instance(times: list[Creation]) -> Creation:
    """That of the instance: its process, its dependencies, until the agent's code can begin."""
    return next(each for each in times if each.layer == "agent_instance")
