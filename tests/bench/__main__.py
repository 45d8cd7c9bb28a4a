"""`make bench`: prints one table of the floor and the product, measured in one run."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.bench import (
    contracts,
    creation,
    floor,
    graphs,
    memory,
    models,
    neighbours,
    objects,
    processes,
    product,
    rest,
)
from tests.bench.figures import Latency
from tests.bench.report import Report
from tests.e2e.chain import Chain, running_chain

# DESIGN, section 12: to be at least equalled. What RPCs promise stands in their protos (`contracts`).
CREATION_P99_MS = {
    "execution_engine": 5.0,
    "agent_instance": 3.0,
    "websocket_emitter": 1.0,
    "bridge_integration": 2.0,
    "total": 11.0,
}
CONTEXT_BYTES = 2048
FACTORY_BYTES = 1024
# The targets of the first chain.
EVENTS_PER_S = 10_000
FIRST_EVENT_RATIO = 2.0
NEIGHBOUR_RATIO = 1.5
AT_ONCE = (1, 10, 100)
TASKS, PROCESSES, COLD = "as tasks", "in processes", "in processes, none idle"
_ENVIRONMENT = {"FACTORYCHAIN_FRAMES_PER_S": "10000", "FACTORYCHAIN_FRAMES_BURST": "10000"}
_ISOLATION = {
    TASKS: {"FACTORYCHAIN_ISOLATION": "task"},
    PROCESSES: {"FACTORYCHAIN_ISOLATION": "process"},
    COLD: {
        "FACTORYCHAIN_ISOLATION": "process",
        "FACTORYCHAIN_IDLE_PROCESSES_MIN": "0",
        "FACTORYCHAIN_IDLE_PROCESSES_MAX": "0",
    },
}


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    part: int
    """One of how many of the samples are taken."""
    neighbours_s: float
    """With hostile users, and as long without."""


FULL = Effort(1, 60.0)
SHORT = Effort(4, 10.0)


async def bench(effort: Effort) -> None:
    """Everything, in the order of the table."""
    report = Report()
    async with (
        floor.floor_chain() as address,
        _chain(TASKS) as tasks,
        _chain(PROCESSES) as in_processes,
    ):
        chains = {TASKS: tasks, PROCESSES: in_processes}
        await _rest(report, chains, address, effort)
        await _contracts(report, in_processes, effort)
        await _first_event(report, chains, address, effort)
        await _events(report, chains, address, effort)
        await _memory(report, chains)
        await _many(report, chains, effort)
    async with _chain(PROCESSES, ("--agents", "tests.bench.hostile_agents")) as chain:
        await _neighbours(report, chain, effort)
    await _models(report, effort)
    await _graphs(report, effort)
    report.show()


@contextlib.asynccontextmanager
async def _chain(isolation: str, arguments: tuple[str, ...] = ()) -> AsyncIterator[Chain]:
    env = _ENVIRONMENT | _ISOLATION[isolation]
    with tempfile.TemporaryDirectory(prefix="factorychain-bench-") as folder:
        given = ("--agents", "tests.bench.agents", *arguments)
        async with running_chain(Path(folder), given, env) as chain:
            yield chain


async def _rest(report: Report, chains: dict[str, Chain], address: str, effort: Effort) -> None:
    async with floor.unary_call(address) as call, _chain(COLD) as cold:
        rounds = 200 // effort.part
        base, found = await rest.from_rest({**chains, COLD: cold}, call, rounds=rounds)
        made = {name: await creation.creation_times(each) for name, each in chains.items()}
        instances = {name: creation.instance(each) for name, each in made.items()}
        instances[COLD] = creation.instance(await creation.creation_times(cold))
    report.heading("Submit → first event, from rest, taking turns")
    report.add("floor: unary call, 4 hops", base)
    for name in chains:
        first = found[name].first_event
        report.add(name, _to_floor(first, base), f"p50 ≤ {FIRST_EVENT_RATIO:g}× the floor")
    report.heading("Submit → the agent's first line, from rest, taking turns")
    for name, each in found.items():
        report.add(name, each.first_line)
    report.heading("Start of an instance, as the agents layer records it")
    for name, instance in instances.items():
        report.add(name, instance)
    for name, layers in made.items():
        report.heading(f"Creation from rest, {name} (DESIGN, section 12)")
        for layer in layers:
            report.add(layer.layer, layer, f"p99 ≤ {CREATION_P99_MS[layer.layer]:g} ms")


async def _contracts(report: Report, chain: Chain, effort: Effort) -> None:
    rounds = 400 // effort.part
    found = await contracts.contracts_kept(chain, rounds=rounds)
    report.heading(f"RPCs from rest, {PROCESSES}, against their contracts")
    for each in found:
        report.add(each.name, each, f"p99 ≤ {each.p99_ms:g} ms")


async def _first_event(
    report: Report, chains: dict[str, Chain], address: str, effort: Effort
) -> None:
    for users in AT_ONCE:
        calls = 1200 // effort.part
        base = await floor.unary_round_trip(address, at_once=users, calls=calls)
        report.heading(f"Submit → first event, {users} at once")
        report.add("floor: unary call, 4 hops", base)
        for name, chain in chains.items():
            runs_each = max(4, 400 // users // effort.part)
            found = await product.submit_to_first_event(chain, users=users, runs_each=runs_each)
            report.add(name, _to_floor(found, base))


async def _events(report: Report, chains: dict[str, Chain], address: str, effort: Effort) -> None:
    report.heading("Event latency: emitted → on the socket")
    stream = await floor.stream_round_trip(address, messages=1000 // effort.part)
    report.add("floor: message on an open stream, 4 hops, and back", stream)
    for users in (1, 10):
        for name, chain in chains.items():
            thoughts = 300 // effort.part
            found = await product.emitted_to_socket(chain, users=users, thoughts=thoughts)
            report.add(f"{users} × 50/s, {name}", found)
    report.heading("Events/s end to end, 10 users × 1,000")
    for name, chain in chains.items():
        flood = await product.throughput(chain, users=10, thoughts=1000)
        report.add(name, f"{flood.per_s:,.0f}", f"{EVENTS_PER_S:,}")


async def _memory(report: Report, chains: dict[str, Chain]) -> None:
    report.heading("Memory (DESIGN, section 12)")
    context = objects.context_bytes()
    report.add("bytes of a UserExecutionContext", f"{context:,.0f}", f"≤ {CONTEXT_BYTES:,}")
    for name, size in (await objects.factory_bytes()).items():
        report.add(f"bytes of {name}", f"{size:,.0f}", f"≤ {FACTORY_BYTES:,}")
    for name, chain in chains.items():
        grown = await memory.memory_per_run(chain, runs=100)
        of_layers = "   ".join(f"{layer} {size / 1024:.1f}" for layer, size in grown.items())
        report.add(f"services' per waiting run, {name}, KiB", of_layers)


async def _many(report: Report, chains: dict[str, Chain], effort: Effort) -> None:
    report.heading("Runs/s, 20 users, each one after the other")
    for name, chain in chains.items():
        rate = await processes.runs_per_s(chain, users=20, seconds=12 / effort.part)
        report.add(name, f"{rate:.0f}")
    many = await processes.at_once(chains[PROCESSES])
    runs = processes.USERS * processes.RUNS_EACH
    report.heading(f"{runs:,} runs at once in processes, {processes.USERS} users")
    others = f"; others: {', '.join(sorted(set(many.other_endings)))}" if many.other_endings else ""
    report.add("ended with agent_completed", f"{many.completed:,}{others}", f"{runs:,}")
    report.add("start → the agent's code of all runs", f"{many.there_s:.1f} s")
    report.add("let go → every ending on its socket", f"{many.left_s:.1f} s")
    private, pss = many.memory.private / 2**20, many.memory.pss / 2**20
    report.add("a run process: private memory, median", f"{private:.2f} MiB   Pss {pss:.2f} MiB")
    report.add("the whole machine's memory, for each run", f"{many.machine_bytes / 2**20:.2f} MiB")


async def _neighbours(report: Report, chain: Chain, effort: Effort) -> None:
    found = await neighbours.neighbours(chain, seconds=effort.neighbours_s)
    users = f"{neighbours.QUIET_USERS} quiet users × {neighbours.PER_S}/s"
    report.heading(f"Neighbours: emitted → on the socket, {users}")
    hostile = f"beside {len(found.harm)} hostile users"
    for what, heard in (("alone", found.alone), (hostile, found.beside)):
        report.add(f"{what}, {heard.seconds:.0f} s", f"{heard.latency}   {heard.share:.0%} came")
    report.add("p99 beside : alone", f"{found.ratio:.2f}", f"≤ {NEIGHBOUR_RATIO:g}")
    for agent, became in found.harm.items():
        endings = ", ".join(f"{times:,} × {what}" for what, times in became.items())
        report.add(f"runs of the hostile user: {agent}", endings)


async def _models(report: Report, effort: Effort) -> None:
    found = await models.model_figures(rounds=400 // effort.part)
    report.heading("Models: asked → first token")
    for name, latency in found.first_token.items():
        report.add(name, latency)
    p50_ms, p99_ms = found.added
    report.add("the gateway adds", f"p50 {p50_ms:.2f} ms   p99 {p99_ms:.2f} ms")
    report.heading("Models: tokens/s")
    for streams, rates in found.tokens_per_s.items():
        direct, through = rates[models.DIRECT], rates[models.THROUGH]
        measured = f"{through:,.0f} through the gateway, {direct:,.0f} direct"
        report.add(f"streams at once: {streams}", f"{measured}   {through / direct:.0%}")


async def _graphs(report: Report, effort: Effort) -> None:
    runs = max(5, 20 // effort.part)
    report.heading(f"LangGraph, {runs} runs: events of the graph's own stream : on the socket")
    for kind, (own, ours) in (await graphs.counted(runs)).items():
        report.add(kind, f"{own} : {ours}", "equal")


def _to_floor(found: Latency, base: Latency) -> str:
    return f"{found}   {found.p50_ms / base.p50_ms:.2f}× floor"


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer samples")
    uvloop.run(bench(SHORT if parser.parse_args().short else FULL))


if __name__ == "__main__":
    main()
