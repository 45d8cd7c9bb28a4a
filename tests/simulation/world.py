"""One simulation: a chain, its users and what goes wrong, all from one number.

Invariant: everything follows from the seed. Two simulations of a seed take the same turns, which
`Result.digest` sums up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from zlib import crc32

from factorychain._core.component import ComponentGroup
from factorychain._core.crash_points import watch
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.link import LinkRun
from factorychain_agents.server import AgentsServer
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.server import EngineServer
from tests.simulation import crash_plans, observing, reality, services
from tests.simulation.absences import Absences
from tests.simulation.client import Client
from tests.simulation.crashes import Crashes, first_of
from tests.simulation.endings import Endings
from tests.simulation.faults import USERS, Fault, Plan
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.nats_server import FakeNats
from tests.simulation.nats_wire import Server as NatsServer
from tests.simulation.network import Network
from tests.simulation.orders import Order
from tests.simulation.result import Result
from tests.simulation.services import Server, Warned

REST_S = 150.0
"""How long the chain may take to come to rest once nothing goes wrong any more."""
# What must not be logged whatever goes wrong around a service: these say that it is at fault itself.
_BUGS = (
    "a background task failed", "the link failed", "a failure nobody handled",
    "a run could not be opened", "a run's events could not be handled",
    "a run could not be closed", "a run could not take its receipt", "an instance broke its host",
)  # fmt: skip


@dataclass
class Replica:
    """A service that is restarted when it dies, as a supervisor does."""

    layer: str
    name: str
    process: Process
    server: Server | None = None
    group: ComponentGroup | None = None
    up: bool = False
    """Whether it has started, and was not told to stop since."""


class World:
    """The chain of one seed."""

    def __init__(self, seed: int, *, at_crash_points: bool = False) -> None:
        """`at_crash_points`: what goes wrong is that processes die there, and nothing else."""
        self.seed = seed
        self.random = Random(seed)
        self.loop = SimulatedLoop(Random(seed + 1))  # type: ignore[abstract]  # only for mypy
        reality.follow(self.loop, seed)
        self.trace: list[str] = []
        self.network = Network(self.loop, Random(seed + 2))
        if at_crash_points:
            self.plan = crash_plans.make(self.random, first_of(seed))
        else:
            self.plan = Plan.of(self.random)
        services.install(self.network, self._warned)
        self.nats = FakeNats(self.loop.time)
        self.nats_server = NatsServer(self.nats, Random(seed + 3))
        self.absences = Absences(self.loop.time)
        self.endings = Endings(self.loop.time, self.absences)
        self.observer = observing.Observer(
            self.nats, services.USER_LIMIT, self.endings, self.note, self.loop.look
        )
        observing.begin(self.observer)
        self.replicas: dict[str, Replica] = {}
        self.clients: dict[str, Client] = {}
        self.faults: dict[str, int] = {}
        self.crashes: Crashes | None = None
        if at_crash_points:
            self.crashes = Crashes(self.loop, Random(seed + 4), seed, self._crash)

    def note(self, what: str) -> None:
        self.trace.append(f"{self.loop.now_s:9.4f} {what}")

    def _warned(self, line: Warned) -> None:
        who = self.loop.current.name
        self.note(f"{who}: {line.level} {line.event} {line.line.get('cause', '')}")
        if line.event in _BUGS:
            self.observer.violated(f"{who} logged: {line.event}: {line.line.get('exception')}")

    # --- processes --------------------------------------------------------------------------

    def start_nats(self) -> None:
        self.nats_process = Process("nats")
        with self.loop.within(self.nats_process):
            self.network.listen(services.NATS, self.nats_server.accept)

    def start(self, layer: str, name: str) -> None:
        replica = self.replicas[name] = Replica(layer, name, Process(name))
        _ = self.loop.spawn(replica.process, self._serve(replica), "service")

    async def _serve(self, replica: Replica) -> None:
        try:
            replica.server, replica.group = services.build(
                replica.layer, replica.name, self.network, self.plan.nats
            )
        except Exception as error:
            self.observer.violated(f"{replica.name} could not be built: {error!r}")
            return
        if isinstance(replica.server, AgentsServer):
            self._watch(replica.server, replica.name)
        elif isinstance(replica.server, EngineServer):
            self._watch_adoptions(replica.server, replica.process)
        try:
            await replica.group.start()
            replica.up = True
            self.absences.is_back(replica.name)
        except Exception as error:
            self.note(f"{replica.name} did not start: {error!r}")
            self._restart_later(replica, 0.5)

    def _watch(self, agents: AgentsServer, name: str) -> None:
        """Hears what this replica is told to be durable."""
        inner: Callable[..., LinkRun] = agents.link.open

        def opened(ctx: UserExecutionContext, **options: object) -> LinkRun:
            attempt = self.endings.accepted(ctx.run, ctx.attempt, name)
            heard = self.observer.acknowledging(ctx, attempt, options.pop("observer", None))  # type: ignore[arg-type]
            return inner(ctx, **options, observer=heard)

        agents.link.open = opened  # type: ignore[method-assign]

    def _watch_adoptions(self, engine: EngineServer, process: Process) -> None:
        inner = engine.clean_up._adopt_run

        def adopt(principal: Principal, entry: ActiveRun) -> None:
            def still() -> bool:
                return process.alive and engine.runs.find(principal, entry.run) is not None

            self.observer.adopted(entry.run, process.name, self.loop.now_s, still)
            inner(principal, entry)

        engine.clean_up._adopt_run = adopt

    def _crash(self, name: str, back_after_s: float) -> None:
        point = self.crashes.hit[-1] if self.crashes is not None else ""
        self.note(f"FAULT {name} dies at {point}, back after {back_after_s} s")
        self.faults["crash"] = self.faults.get("crash", 0) + 1
        self.kill(name, back_after_s)

    def kill(self, name: str, back_after_s: float) -> None:
        replica = self.replicas[name]
        if replica.process.alive:
            self._restart_later(replica, back_after_s)

    def drain(self, name: str, back_after_s: float) -> None:
        """What SIGTERM does to a service that has started."""
        replica = self.replicas[name]
        if replica.process.alive and replica.up:
            replica.up = False
            self.absences.dies(name)
            _ = self.loop.spawn(replica.process, self._stop(replica, back_after_s), "drain")

    async def _stop(self, replica: Replica, back_after_s: float) -> None:
        assert replica.group is not None, "it has started"
        await replica.group.stop()
        self._restart_later(replica, back_after_s)

    def pause(self, name: str, for_s: float) -> None:
        process = self.replicas[name].process
        process.paused = True
        self.absences.away(name, for_s=for_s)
        self.loop.call_later(for_s, self.loop.resume, process)

    def hold(self, one: str, other: str, for_s: float) -> None:
        self.absences.away(one, other, for_s=for_s)
        self.network.hold(one, other, for_s)

    def reset(self, one: str, other: str) -> None:
        self.absences.away(one, other, for_s=0.0)
        _ = self.network.reset(one, other)

    def _restart_later(self, replica: Replica, after_s: float) -> None:
        self.absences.dies(replica.name)
        self.loop.kill(replica.process)
        self.network.gone(replica.process)
        self.later(after_s, self.start, replica.layer, replica.name)

    def restart_nats(self, back_after_s: float) -> None:
        self.absences.away("nats", for_s=back_after_s)
        self.loop.kill(self.nats_process)
        self.network.gone(self.nats_process)
        self.later(back_after_s, self.start_nats)

    def later(self, after_s: float, happen: Callable[..., object], *about: object) -> None:
        """Whatever is killed until then."""
        with self.loop.within(_OUTSIDE):
            self.loop.call_later(after_s, happen, *about)

    # --- the whole --------------------------------------------------------------------------

    def run(self) -> Result:
        """The simulation from beginning to end."""
        self.start_nats()
        for layer, number in self.plan.replicas.items():
            names = [f"{layer}-{each}" for each in range(1, number + 1)]
            port = services.LAYERS[layer]
            self.network.names[f"{layer}:{port}"] = [f"{each}:{port}" for each in names]
            for name in names:
                self.later(self.plan.starts_s[layer], self.start, layer, name)
        self._populate()
        for fault in self.plan.faults:
            self.later(fault.at_s, self._do, fault)
        ended = self.loop.run_until(self._quiet, self.plan.ends_at_s + REST_S)
        if not ended:
            self.observer.violated(f"no rest: {self._left()}")
        self._check()
        return self._close()

    def _populate(self) -> None:
        for user, lanes in self.plan.users.items():
            threads = sorted({order.thread for lane in lanes for order in lane})
            self._connect(user, threads, user, lanes)
            if user in self.plan.listeners:
                self._connect(user, threads, f"{user}'s second", [])

    def _connect(self, user: str, threads: list[str], name: str, lanes: list[list[Order]]) -> None:
        """A device of a user: one that wants nothing only listens."""
        bridges = [f"bridge-{each}" for each in range(1, self.plan.replicas["bridge"] + 1)]
        random = Random(crc32(name.encode()) + self.seed)
        principal = Principal("acme", user)
        client = Client(
            self.network, self.observer, principal, bridges, threads, random, bool(lanes)
        )
        self.clients[name] = client
        self.later(self.plan.starts_s[USERS], client.begin, lanes)

    def _do(self, fault: Fault) -> None:
        self.note(f"FAULT {fault}")
        self.faults[fault.kind] = self.faults.get(fault.kind, 0) + 1
        fault.happen(self)

    # --- coming to rest ---------------------------------------------------------------------

    def _quiet(self) -> bool:
        if self.loop.failures:
            self.observer.violated(f"a failure nobody handled: {self.loop.failures.pop()}")
        if self.observer.violations:
            return True
        self.loop.look_at_s = self.loop.now_s + 0.25
        return self.loop.now_s > max(1.0, self.plan.ends_at_s) and not self._left()

    def _left(self) -> list[str]:
        """What still holds something of a run, or has not shown what there is."""
        left = [f"{user} is busy" for user, each in self.clients.items() if not each.idle]
        if left:
            return left
        for client in self.clients.values():
            for thread, seen in client.seen.items():
                number = len(self.observer.log_of(client.principal, thread))
                if len(seen.events) < number:
                    left.append(f"{thread}: {len(seen.events)} of {number} events shown")
        for replica in self.replicas.values():
            left += [f"{replica.name}: {each}" for each in services.held(replica.server)]
        bucket = self.nats.streams.get("KV_users")
        for entry in () if bucket is None else bucket.messages.values():
            if b'"run"' in entry.data:
                left.append(f"a place is taken: {entry.data[:200]!r}")
        return left

    def _check(self) -> None:
        if self.observer.violations:
            return
        self.observer.check_admitted()
        self.observer.check_answers()
        for client in self.clients.values():
            for thread, seen in client.seen.items():
                self.observer.check_thread(client.principal, thread, seen)

    def _close(self) -> Result:
        observer = self.observer
        counts = {
            "runs": len(observer.admitted), "bodies": observer.bodies, "events": observer.read,
            "attempts after the first": observer.again, "resumed": len(observer.goes_on), "acknowledged": observer.acknowledged, "faults": sum(self.faults.values()),
        }  # fmt: skip
        digest = self.loop.digest
        self.loop.close()
        crashed = self.crashes.hit if self.crashes is not None else []
        watch(None)
        return Result(self.seed, observer.violations, self.trace, digest, counts, crashed)


_OUTSIDE = Process("outside")
