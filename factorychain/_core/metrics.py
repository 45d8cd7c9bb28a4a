"""Counters, up-down counters and histograms that are cheap to touch and can be read in process.

The numbers live here; an exporter reads them when it exports. Invariant: an instrument holds at
most `MAX_SERIES` sets of attributes, what comes beyond is counted under one overflow series, so
that no label can grow without bound.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Value = str | bool | int | float
Labels = Mapping[str, Value]
Series = tuple[tuple[str, Value], ...]

MAX_SERIES = 1000
OVERFLOW: Series = (("otel.metric.overflow", True),)
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
)  # fmt: skip


class Total:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        self.value += amount


class Distribution:
    """One series of a histogram: how many, their sum, and how many in each bucket."""

    __slots__ = ("bounds", "buckets", "count", "forward", "maximum", "total")

    def __init__(
        self, bounds: Sequence[float], forward: Callable[[float], None] | None = None
    ) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0
        self.forward = forward

    def record(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value
        self.maximum = max(self.maximum, value)
        if self.forward is not None:
            self.forward(value)

    def quantile(self, q: float) -> float:
        """The upper bound of the bucket that the quantile falls into; 0 when empty."""
        seen, wanted = 0, q * self.count
        for bound, number in zip((*self.bounds, self.maximum), self.buckets, strict=True):
            seen += number
            if seen and seen >= wanted:
                return min(bound, self.maximum)
        return 0.0


S = TypeVar("S", bound=Total | Distribution)
Kind = Literal["counter", "up_down_counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """What an instrument is called and means."""

    kind: Kind
    name: str
    description: str
    unit: str


class Instrument(Generic[S]):
    """The series of one name."""

    def __init__(self, described: Described, make: Callable[[Series], S]) -> None:
        self.described = described
        self._make = make
        self._series: dict[Series, S] = {}
        self._plain: S | None = None

    def labels(self, attributes: Labels | None = None) -> S:
        """The series for these attributes. Keep it where the path is hot."""
        if not attributes:
            if self._plain is None:
                self._plain = self._find(())
            return self._plain
        return self._find(tuple(sorted(attributes.items())))

    def _find(self, key: Series) -> S:
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= MAX_SERIES and key != OVERFLOW:
                return self._find(OVERFLOW)
            # setdefault: two threads that meet here get the same series.
            found = self._series.setdefault(key, self._make(key))
        return found

    def series(self) -> Iterator[tuple[Series, S]]:
        yield from list(self._series.items())


class Counter(Instrument[Total]):
    """Counts up; an up-down counter also down."""

    def add(self, amount: float = 1, attributes: Labels | None = None) -> None:
        self.labels(attributes).add(amount)

    def value(self, attributes: Labels | None = None) -> float:
        """One series' value; 0 if nothing was counted in it."""
        found = self._series.get(tuple(sorted((attributes or {}).items())))
        return found.value if found is not None else 0

    def sum(self) -> float:
        """All series together."""
        return sum(each.value for _, each in self.series())


class Histogram(Instrument[Distribution]):
    """Distributions, with fixed bucket bounds."""

    def record(self, value: float, attributes: Labels | None = None) -> None:
        self.labels(attributes).record(value)

    def __init__(self, described: Described, bounds: Sequence[float]) -> None:
        self._forward: Callable[[float, Series], None] | None = None
        self.bounds = tuple(bounds)
        super().__init__(described, lambda key: Distribution(self.bounds, self._forwarder(key)))

    def forward_to(self, forward: Callable[[float, Series], None] | None) -> None:
        """Also hands each value on (an exporter's histogram); None stops that."""
        self._forward = forward
        for key, each in self.series():
            each.forward = self._forwarder(key)

    def _forwarder(self, key: Series) -> Callable[[float], None] | None:
        forward = self._forward
        return None if forward is None else lambda value: forward(value, key)


class Registry:
    """Every instrument by name; asking twice for a name gives the same one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instruments: dict[str, Counter | Histogram] = {}
        self._on_new: Callable[[Counter | Histogram], None] | None = None

    def counter(self, kind: Kind, name: str, description: str, unit: str) -> Counter:
        with self._lock:
            found = self._instruments.get(name)
            if found is None:
                found = self._add(
                    Counter(Described(kind, name, description, unit), lambda _: Total())
                )
        if not isinstance(found, Counter) or found.described.kind != kind:
            raise ValueError(f"the instrument {name} exists and is a {found.described.kind}")
        return found

    def histogram(
        self, name: str, description: str, unit: str, bounds: Sequence[float]
    ) -> Histogram:
        with self._lock:
            found = self._instruments.get(name)
            if found is None:
                found = self._add(
                    Histogram(Described("histogram", name, description, unit), bounds)
                )
        if not isinstance(found, Histogram):
            raise ValueError(f"the instrument {name} exists and is a {found.described.kind}")
        return found

    def _add(self, instrument: Counter | Histogram) -> Counter | Histogram:
        self._instruments[instrument.described.name] = instrument
        if self._on_new is not None:
            self._on_new(instrument)
        return instrument

    def watch(self, on_new: Callable[[Counter | Histogram], None] | None) -> None:
        """Shows an exporter every instrument, those that are there and those to come."""
        with self._lock:
            self._on_new = on_new
            if on_new is not None:
                for each in self._instruments.values():
                    on_new(each)

    def __iter__(self) -> Iterator[Counter | Histogram]:
        yield from list(self._instruments.values())


REGISTRY = Registry()


def counter(name: str, description: str, unit: str = "1") -> Counter:
    """A number that only grows."""
    return REGISTRY.counter("counter", name, description, unit)


def up_down_counter(name: str, description: str, unit: str = "1") -> Counter:
    """A number that rises and falls: what exists right now."""
    return REGISTRY.counter("up_down_counter", name, description, unit)


def histogram(
    name: str, description: str, unit: str = "s", bounds: Sequence[float] = SECONDS
) -> Histogram:
    """A distribution; the default buckets suit seconds."""
    return REGISTRY.histogram(name, description, unit, bounds)


Layer = Literal[
    "execution_engine", "agent_instance", "websocket_emitter", "bridge_integration", "total"
]

_creation = histogram(
    "factorychain.creation.duration", "Time to make what a run needs, by layer and in total"
)


def record_creation(layer: Layer, seconds: float) -> None:
    """Notes how long a layer took to make its part of a run."""
    _creation.record(seconds, {"layer": layer})
