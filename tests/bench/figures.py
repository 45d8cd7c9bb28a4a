"""Percentiles and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one measurement, in milliseconds."""

    p50_ms: float
    p99_ms: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """The percentiles (nearest rank) of durations in seconds."""
        ordered = sorted(seconds)
        return cls(_rank(ordered, 0.50) * 1e3, _rank(ordered, 0.99) * 1e3, len(ordered))

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:7.2f} ms   p99 {self.p99_ms:7.2f} ms   (n={self.samples})"


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
