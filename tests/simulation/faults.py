"""What a seed decides beforehand: replicas, users, what they want, and what goes wrong when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING

from factorychain_agents.server import AgentsServer
from tests.simulation import orders, services
from tests.simulation.orders import Order

if TYPE_CHECKING:
    from tests.simulation.world import World

LAYERS = ("engine", "agents", "emitter", "bridge")
USERS = "users"
_FEW, _MORE = (1, 1, 1, 2), (1, 1, 2)
"""Of so many replicas one number is chosen; engines are more, since they decide together."""
_PAIRS = (
    ("engine", "agents"), ("engine", "emitter"), ("agents", "emitter"), ("emitter", "bridge"),
    ("bridge", "engine"), ("agents", "engine"), ("engine", "nats"), ("bridge", "nats"),
)  # fmt: skip
_WAY_TO_THE_LOG = (("agents", "emitter"), ("emitter", "bridge"), ("bridge", "nats"))
_IN_TURN_S = {"engine": 0.0, "bridge": 0.04, "emitter": 0.06, "agents": 0.065, USERS: 0.09}
"""When each starts where a supervisor starts one after the other, as it does in most seeds."""
TROUBLE_S = 5.0
"""Most users have what they want by then if nothing goes wrong: later faults would hit nobody."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    kind: str
    where: str
    happen: Callable[[World], object]

    def __str__(self) -> str:
        return f"{self.kind} {self.where}"


@dataclass(frozen=True)
class Plan:
    """A seed's decisions."""

    replicas: dict[str, int]
    nats: int
    """Servers that keep a copy: with three, whoever answers a direct get may be behind."""
    users: dict[str, list[list[Order]]]
    listeners: list[str]
    """Users with a second device."""
    faults: list[Fault]
    ends_at_s: float
    starts_s: dict[str, float]
    """When the layers start, and their users."""

    @classmethod
    def of(cls, random: Random, *, crowded: bool = False) -> Plan:
        replicas = {
            layer: random.choice(_MORE if crowded or layer == "engine" else _FEW)
            for layer in LAYERS
        }
        users = {
            name: orders.lanes(random, name, (1, 1, 2, 2, 4) if crowded else (1, 1, 1, 1, 3))
            for name in ("ada", "bob")[: random.choice((1, 1, 2, 2) if crowded else (1, 1, 1, 2))]
        }
        if random.random() < 0.04:  # enough to wait at both for the same place
            replicas.update(engine=2, agents=2)
            users["ada"] = orders.rush()
        made = [_fault(random, replicas, list(users)) for _ in range(_how_many(random))]
        listeners = [name for name in users if random.random() < 0.3]
        if random.random() < 0.2:
            users["ada"].append([orders.long_and_safe(random)])
            if random.random() < 0.5:  # two attempts may write, each by its own way
                replicas.update(agents=2, emitter=3, bridge=3)
                made.append(_stall(random))
            else:
                made += [_loss_of_agents(random) for _ in range(random.choice((1, 1, 3)))]
        nats = random.choice((1, 3))
        if random.random() < 0.1:
            made += _deaf_engines()
        starts_s = _IN_TURN_S if random.random() < 0.8 else dict.fromkeys(_IN_TURN_S, 0.0)
        if not crowded and random.random() < 0.025:
            users["ada"].insert(0, [orders.long_and_speaking()])
            made.append(_long_outage(random, replicas))
        made.sort(key=lambda fault: fault.at_s)
        ends_at_s = made[-1].at_s if made else 0.0
        return cls(replicas, nats, users, listeners, made, ends_at_s, starts_s)


def _how_many(random: Random) -> int:
    return random.choice((0, 1, 1, 2, 3, 4, 6, 10))


def _loss_of_agents(random: Random) -> Fault:
    """Agents with runs are killed, or silent for so long that these are given up before they wake up."""
    if random.random() < 0.5:
        return _stall(random)
    at_s, back_s = random.uniform(0.5, 6.0), random.choice((0.05, 3.0, 9.0))
    where = f"agents that have much to lose, back after {back_s} s"
    return Fault(at_s, "kill", where, lambda world: world.kill(most_to_lose(world), back_s))


def _stall(random: Random) -> Fault:
    at_s, where = random.uniform(1.5, 6.0), "agents that have much to lose"
    return Fault(at_s, "pause", where, lambda world: world.pause(most_to_lose(world), 10.0))


def _deaf_engines() -> list[Fault]:
    """So many answers of NATS are lost that an engine may never hear of a place that it has taken."""
    happen = _losing_answers(0.5, 3.0)
    return [Fault(at_s, "lost_answers", "of NATS, for long", happen) for at_s in (0.4, 3.4)]


def _long_outage(random: Random, replicas: dict[str, int]) -> Fault:
    """Nothing gets into the log until agents have to give up what they are told to say all the time."""
    at_s, for_s = random.uniform(1.6, 3.0), services.OUTAGE_MAX_S + 4.0
    if random.random() < 0.25:
        where = f"for {for_s} s"
        return Fault(at_s, "nats_outage", where, lambda world: world.restart_nats(for_s))
    one, other = random.choice(_WAY_TO_THE_LOG)
    pairs = [*product(_all(replicas, one), _all(replicas, other))]

    def happen(world: World) -> None:
        for pair in pairs:
            world.hold(*pair, for_s)

    return Fault(at_s, "hold", f"all of {one} and {other} for {for_s} s", happen)


def most_to_lose(world: World) -> str:
    """Those with runs that are started again then, or with any."""
    names = [
        each.name
        for each in world.replicas.values()
        if each.layer == "agents" and each.process.alive and not each.process.paused
    ]
    return max(names, key=lambda name: runs_to_lose(world, name), default="agents-1")


def runs_to_lose(world: World, name: str) -> tuple[int, int]:
    """How many runs these agents have that would be started again, and how many in all."""
    server = world.replicas[name].server
    if not isinstance(server, AgentsServer):
        return 0, 0
    runs = [run.ctx.agent == "safe" for run in server.runs._live.values()]
    return sum(runs), len(runs)


def _fault(random: Random, replicas: dict[str, int], users: list[str]) -> Fault:
    at_s = random.uniform(0.4, TROUBLE_S)
    kind = random.choice(_KINDS)
    where, happen = kind(random, replicas, users)
    return Fault(at_s, kind.__name__.strip("_"), where, happen)


Made = tuple[str, Callable[["World"], object]]


def one_of(random: Random, replicas: dict[str, int], layer: str | None = None) -> str:
    layer = layer or random.choice(LAYERS)
    return "nats" if layer == "nats" else f"{layer}-{random.randint(1, replicas[layer])}"


def _all(replicas: dict[str, int], layer: str) -> list[str]:
    if layer == "nats":
        return [layer]
    return [f"{layer}-{each}" for each in range(1, replicas[layer] + 1)]


def _pair(random: Random, replicas: dict[str, int]) -> tuple[str, str]:
    one, other = random.choice(_PAIRS)
    return one_of(random, replicas, one), one_of(random, replicas, other)


def _kill(random: Random, replicas: dict[str, int], _: list[str]) -> Made:
    name, back_s = one_of(random, replicas), random.choice((0.05, 0.5, 3.0, 9.0))
    return f"{name}, back after {back_s} s", lambda world: world.kill(name, back_s)


def _drain(random: Random, replicas: dict[str, int], _: list[str]) -> Made:
    name, back_s = one_of(random, replicas), random.choice((0.05, 0.5, 3.0))
    return f"{name}, back after {back_s} s", lambda world: world.drain(name, back_s)


def _pause(random: Random, replicas: dict[str, int], _: list[str]) -> Made:
    name, for_s = one_of(random, replicas), random.choice((0.3, 2.0, 8.0, 11.0))

    return f"{name} for {for_s} s", lambda world: world.pause(name, for_s)


def _reset(random: Random, replicas: dict[str, int], _: list[str]) -> Made:
    one, other = _pair(random, replicas)
    return f"{one} and {other}", lambda world: world.reset(one, other)


def _hold(random: Random, replicas: dict[str, int], _: list[str]) -> Made:
    one, other = _pair(random, replicas)
    for_s = random.choice((0.1, 1.0, 4.0, 10.0))
    return f"{one} and {other} for {for_s} s", lambda world: world.hold(one, other, for_s)


def _nats_outage(random: Random, _: dict[str, int], __: list[str]) -> Made:
    for_s = random.choice((0.05, 1.0, 5.0))
    return f"for {for_s} s", lambda world: world.restart_nats(for_s)


def _lost_answers(random: Random, _: dict[str, int], __: list[str]) -> Made:
    for_s, part = random.choice((0.5, 3.0)), random.choice((0.1, 0.5))
    return f"of NATS, {part:.0%} for {for_s} s", _losing_answers(part, for_s)


def _losing_answers(part: float, for_s: float) -> Callable[[World], None]:
    def happen(world: World) -> None:
        world.absences.away("nats", for_s=for_s)
        world.nats_server.lose_replies = part
        world.loop.call_later(for_s, setattr, world.nats_server, "lose_replies", 0.0)

    return happen


def _lost_live(random: Random, _: dict[str, int], __: list[str]) -> Made:
    for_s = random.choice((1.0, 5.0))

    def happen(world: World) -> None:
        world.nats_server.lose_live = 0.4
        world.loop.call_later(for_s, setattr, world.nats_server, "lose_live", 0.0)

    return f"for {for_s} s", happen


def _twice_live(random: Random, _: dict[str, int], __: list[str]) -> Made:
    for_s = random.choice((1.0, 5.0))

    def happen(world: World) -> None:
        world.nats_server.twice_live = 0.4
        world.loop.call_later(for_s, setattr, world.nats_server, "twice_live", 0.0)

    return f"for {for_s} s", happen


def _behind(random: Random, _: dict[str, int], __: list[str]) -> Made:
    """Followers answer what was true a while ago; with one replica there are none."""
    for_s, most_s = random.choice((1.0, 5.0)), random.choice((0.05, 0.5, 2.0))

    def happen(world: World) -> None:
        world.nats_server.behind_s = most_s
        world.loop.call_later(for_s, setattr, world.nats_server, "behind_s", 0.0)

    return f"by up to {most_s} s for {for_s} s", happen


def _socket(random: Random, _: dict[str, int], users: list[str]) -> Made:
    user = random.choice(users)

    def happen(world: World) -> None:
        with world.loop.within(world.clients[user].process):
            world.clients[user].drop()

    return f"of {user}", happen


_KINDS = (
    _kill, _kill, _kill, _drain, _drain, _pause, _pause, _reset, _hold, _nats_outage, _lost_answers,
    _lost_answers, _lost_live, _lost_live, _twice_live, _behind, _behind, _socket, _socket,
)  # fmt: skip
