"""Plans of seeds in which processes die at crash points: users who want what passes every point."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from factorychain_engine.storage.buckets import QUEUED
from tests.simulation import orders
from tests.simulation.faults import TROUBLE_S, Fault, Plan, most_to_lose, one_of, runs_to_lose
from tests.simulation.orders import Order

if TYPE_CHECKING:
    from tests.simulation.world import World

_TRIED_UNTIL_S, _AGAIN_S = 12.0, 0.1


def make(random: Random, points: Collection[str]) -> Plan:
    """Nothing goes wrong by itself but what leads to a point: engines are told to stop and, if it is one
    of `points`, agents are lost with a run that is begun again then, and the input of one that waits.
    """
    plan = Plan.of(random, crowded=True)
    asks = orders.told("ada", asks=True, keeps=True)
    removes = orders.told("ada", steps=1, pause_s=0.05, forgets=True)
    forgets = Order("t4", "walker", removes, None, "enqueue")
    no_more = Order("t1", "walker", asks, 0.05, "enqueue")  # wanted no more while it waits
    interrupts = orders.told("ada", keeps=True, end="interrupt")
    plan.users["ada"] += [
        [orders.long_and_safe(random)],
        [
            Order("t2", "walker", asks, None, "enqueue"),
            Order("t2", "walker", interrupts, None, "enqueue", interrupts=True),
        ],
        [no_more, no_more, no_more],
        [forgets, forgets],
    ]
    if random.random() < 0.7:  # agents have too little room
        plan.replicas["agents"] = 1
        for user, lanes in plan.users.items():
            lane = [Order("t3", "walker", orders.told(user, keeps=True), None, "enqueue")]
            lanes += [lane, lane]
    faults = [_stop_of_engine(random, plan.replicas) for _ in range(random.choice((1, 1, 2, 3)))]
    if any(each.startswith("engine.attempt.") for each in points):
        faults.append(_loss_of_agents(random))
    if any(each.startswith("engine.queue.refus") for each in points):
        faults.append(_loss_of_input(random))
    return replace(plan, faults=sorted(faults, key=lambda fault: fault.at_s))


def _stop_of_engine(random: Random, replicas: dict[str, int]) -> Fault:
    at_s, name = random.uniform(0.5, TROUBLE_S), one_of(random, replicas, "engine")
    back_s = random.choice((0.05, 2.0))
    return Fault(at_s, "drain", name, lambda world: world.drain(name, back_s))


def _loss_of_agents(random: Random) -> Fault:
    """As soon as some have a run that is begun again then."""

    def happen(world: World) -> bool:
        name = most_to_lose(world)
        if not runs_to_lose(world, name)[0]:
            return False
        world.kill(name, 0.05)
        return True

    return _as_soon_as(random.uniform(0.5, 2.0), "kill", "agents with such a run", happen)


def _loss_of_input(random: Random) -> Fault:
    """Of the run that has waited longest, as soon as one waits."""

    def happen(world: World) -> bool:
        bucket = world.nats.streams[f"KV_{QUEUED}"]
        for kept in bucket.messages.values():
            if kept.data:
                _, run, _ = kept.subject.rsplit(".", 2)
                world.endings.lose_input(run)
                world.nats.handle(kept.subject, b"", {"KV-Operation": "DEL"})
                return True
        return False

    return _as_soon_as(random.uniform(0.5, 2.0), "lost_input", "of a run that waits", happen)


def _as_soon_as(at_s: float, kind: str, where: str, happens: Callable[[World], bool]) -> Fault:
    """It is tried again until it happens."""

    def attempt(world: World) -> None:
        if world.loop.now_s < _TRIED_UNTIL_S and not happens(world):
            world.later(_AGAIN_S, attempt, world)

    return Fault(at_s, kind, where, attempt)
