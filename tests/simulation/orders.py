"""What users of a simulation want: runs, and how they go, since agents do what they are told (`agents`).

Invariant: an order is decided before anything runs, so that a seed decides it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Order:
    """One run that a user wants."""

    thread: str
    agent: str
    input: str
    cancel_after_s: float | None
    on_busy: str = "reject"
    interrupts: bool = False
    """Whether it ends with a question, whose answer begins the next run."""
    patient: bool = True
    """Whether its user asks again if there is no answer to the start, or wants nothing more then."""
    together: bool = False
    """Whether it is wanted after just a second, as all such are, else at a moment that chance decides."""


def told(user: str, **otherwise: object) -> str:
    """The input of a run that takes two steps and completes, unless it is told otherwise."""
    usual = {"steps": 2, "pause_s": 0.3, "end": "complete", "asks": False, "keeps": False}
    return json.dumps({**usual, "forgets": False, **otherwise, "canary": f"canary-{user}"})


def lanes(random: Random, user: str, sizes: Sequence[int]) -> list[list[Order]]:
    """Runs at once, of one of the sizes, where two are allowed, in up to three threads."""
    return [
        [_order(random, user) for _ in range(random.choice((1, 1, 1, 1, 2)))]
        for _ in range(random.choice(sizes))
    ]


def _order(random: Random, user: str) -> Order:
    wanted = {
        "steps": random.randint(0, 5),
        "pause_s": random.choice((0.0, 0.01, 0.3, 1.0)),
        "end": random.choice(("complete", "complete", "complete", "interrupt", "fail", "hang")),
        "asks": random.random() < 0.15,
        "keeps": random.random() < 0.3,
    }
    cancel_after_s = random.choice((None, None, 0.05, 1.0))
    if wanted["end"] == "hang" and cancel_after_s is None:
        cancel_after_s = 2.0
    agent = random.choice(("walker", "safe"))
    on_busy = random.choice(("reject", "enqueue", "enqueue", "interrupt"))
    thread = f"t{random.randint(1, 3)}"
    interrupts = wanted["end"] == "interrupt"
    patient = random.random() < 0.85
    return Order(thread, agent, told(user, **wanted), cancel_after_s, on_busy, interrupts, patient)


def rush() -> list[list[Order]]:
    """More short runs at once than a user may have: some wait, at either engine, for the same places."""
    order = told("ada", steps=1)
    threads = ("t1", "t2", "t1", "t2")
    return [[Order(each, "walker", order, None, "enqueue", together=True)] for each in threads]


def long_and_safe(random: Random) -> Order:
    """A run that lives long enough to be lost, and is started again then."""
    order = told("ada", steps=6, pause_s=random.choice((0.6, 1.5)), keeps=True)
    cancel_after_s = random.choice((None, None, None, 6.0))
    return Order("t1", "safe", order, cancel_after_s)


def long_and_speaking() -> Order:
    """A run that says something all the time, for longer than an outage may last."""
    return Order("t4", "walker", told("ada", steps=20, pause_s=0.7), None, "enqueue")
