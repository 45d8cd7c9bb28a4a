"""A process executor alone in a process: says the pids of its zygote and of a run, and waits to be killed."""

from __future__ import annotations

import asyncio
import sys

from factorychain._core import logging
from factorychain._instance.spec import RunSpec
from factorychain_agents.process.process_executor import ProcessExecutor, ProcessOptions
from factorychain_agents.process.profiles import Allowed
from factorychain_agents.registry import AgentRegistry, load
from tests.silent_host import SilentHost

SPEC = RunSpec(
    "acme", "ada", "t", "r", sys.argv[1], 1, '{"text": "hi"}', trace=f"00-{1:032x}-{1:016x}-01"
)
OPTIONS = ProcessOptions(
    Allowed(2**28, 60), 1, 1, silent_s=60, grace_s=1, events_per_s=1000, events_burst=1000
)


class Host(SilentHost):
    """Says when the agent has said something: then it holds up its loop."""

    async def emit(self, kind: int, event: bytes) -> None:
        run = next(iter(executor.processes))
        zygote = executor.zygote.pid if executor.zygote is not None else 0
        sys.stdout.write(f"{zygote} {run}\n")
        sys.stdout.flush()


async def main() -> None:
    global executor
    logging.configure("agents")  # to stderr
    registry = AgentRegistry(load(["tests.integration.agents.process_samples"]), "process")
    executor = ProcessExecutor(
        registry.isolated("process"), OPTIONS, lambda *_: None, registry.validated
    )
    await executor.start()
    run = await executor.start_run(SPEC, Host())
    await run.wait()


executor: ProcessExecutor
asyncio.run(main())
