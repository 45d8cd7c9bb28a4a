"""`factorychain up`: the whole chain on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from factorychain._core.settings import PREFIX, AgentsSettings
from factorychain._sandbox import probe
from factorychain.cli import options
from factorychain.cli.output import command_line, err, fail
from factorychain.errors import AgentError
from factorychain.local.chain import ChainOptions, ChainPlan, plan_chain
from factorychain.local.datadir import DEFAULT, DataDir, DataDirUnusable
from factorychain.local.ports import NoFreePort, is_free
from factorychain.local.sources import SourceWatcher, TooManyFiles, agent_sources
from factorychain.local.supervisor import ChainDidNotStart, Supervisor


class Isolation(StrEnum):
    """Where runs are."""

    PROCESS = "process"
    TASK = "task"


_AS_THE_SERVICE = Isolation(AgentsSettings.model_fields["isolation"].default)


def up(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the edge; 0 picks a free one.")
    ] = 8080,
    data: options.Data = options.DATA_DEFAULT,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE[:NAME]",
            help="A module with agents, from this folder or PYTHONPATH; may be repeated.",
        ),
    ] = None,
    docs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of text and Markdown for the researcher."),
    ] = None,
    isolation: Annotated[
        Isolation,
        typer.Option(
            envvar=f"{PREFIX}ISOLATION",
            help="process: each run in a process of its own, contained. task: all in one process, for"
            " agents that you trust and for debuggers.",
        ),
    ] = _AS_THE_SERVICE,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="For development: restart the agents when a .py file here, or of a module of theirs,"
            " changes. Runs that are under way end as lost.",
        ),
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Written when everything serves, and on restarts."),
    ] = None,
) -> None:
    """Start NATS and the four layers, restart what dies, stop all on ^C."""
    options.check_environment()
    _check(port, docs)
    _check_kernel(isolation)
    watcher = _watcher(agents or ()) if reload else None
    directory = DataDir(data)
    try:
        directory.prepare()
    except DataDirUnusable as error:
        fail(str(error))
    try:
        chain = ChainOptions(port, agents or (), docs, isolation.value, _environment())
        plan = _plan(chain, directory)
        supervisor = Supervisor(plan, directory, ready_file=ready_file, report=_report)
        asyncio.run(_serve(supervisor, directory, watcher))
    except ChainDidNotStart as error:
        fail(str(error))
    finally:
        directory.release()


def _environment() -> dict[str, str]:
    """On a terminal the layers only say what is wrong, so that what agents print is seen."""
    level = f"{PREFIX}LOG_LEVEL"
    return {level: "warning"} if err.is_terminal and not os.environ.get(level) else {}


def _check(port: int, docs: Path | None) -> None:
    if docs is not None:
        _check_documents(docs)
    if port and not is_free(port):
        fail(
            f"port {port} is in use",
            f"factorychain up --port {port + 1}   (or --port 0 for any free port)",
        )


def _check_kernel(isolation: Isolation) -> None:
    """Say once what this machine cannot confine agents by, or that they are not confined at all."""
    required = AgentsSettings().require_sandbox
    variable = f"{PREFIX}REQUIRE_SANDBOX"
    if isolation is Isolation.TASK:
        if required:
            fail(
                f"--isolation task confines nothing, and {variable} requires it",
                f"--isolation process   (or unset {variable})",
            )
        err.print("Runs are tasks of one process: agents are [bold]not contained[/].")
        return
    warnings = probe().warnings
    if warnings and required:
        fail(f"{variable} is set, and this kernel has\n" + "\n".join(warnings), "a newer kernel")
    for each in warnings:
        err.print(Text.assemble(("Agents are contained less than they could be: ", "bold"), each))


def _watcher(agents: Sequence[str]) -> SourceWatcher:
    """What restarts the agents: nothing yet, it is told later whom."""
    folder = Path.cwd()
    theirs = [each for each in agent_sources(agents, folder) if not each.is_relative_to(folder)]
    try:
        return SourceWatcher([folder, *theirs])
    except TooManyFiles as error:
        modules = agent_sources(agents, folder)
        if not modules:
            fail(f"--reload: {error}", "the folder of your agents as the current one")
        err.print(f"--reload: {error}; only the modules of --agents are watched")
        return SourceWatcher(modules)


def _check_documents(docs: Path) -> None:
    # Here, since with it comes what agents need, which no other command does.
    from factorychain.builtin.researcher.documents import read_folder

    try:
        read_folder(docs)
    except AgentError as error:
        fail(f"--docs: {error}", "the path of a folder of .txt and .md files")


def _plan(chain: ChainOptions, directory: DataDir) -> ChainPlan:
    try:
        return plan_chain(chain, directory)
    except (NoFreePort, FileNotFoundError) as error:
        fail(str(error))


async def _serve(supervisor: Supervisor, data: DataDir, watcher: SourceWatcher | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stopping.is_set():
            err.print("Told twice: ending at once")
            supervisor.kill()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told)
    err.print("Starting the chain …")
    try:
        if await _first(supervisor.start(), stopping):
            _welcome(supervisor.state.edge, data)
            async with _watching(supervisor, watcher) if watcher else contextlib.nullcontext():
                await stopping.wait()
    finally:
        err.print("Stopping …")
        await supervisor.stop()


async def _first(starting: Coroutine[None, None, None], stopping: asyncio.Event) -> bool:
    """Waits for the start; False if it is stopped before."""
    start = asyncio.create_task(starting)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            return True
        return False
    finally:
        for task in (start, stop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ChainDidNotStart):
                await task


@contextlib.asynccontextmanager
async def _watching(supervisor: Supervisor, watcher: SourceWatcher) -> AsyncIterator[None]:
    def changed(path: Path) -> None:
        err.print(f"{path} changed: restarting the agents")
        supervisor.restart("agents")

    task = asyncio.create_task(watcher.run(changed))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _report(name: str, what: str) -> None:
    err.print(Text.assemble((f"{name} ", "bold"), what))


def _welcome(edge: str, data: DataDir) -> None:
    """What to do next, as it can be typed in this folder."""
    us = command_line()
    where = "" if data.path == DEFAULT.resolve() else f" --data {shlex.quote(str(data.path))}"
    err.print(f"[bold green]The chain is up.[/]  Console and WebSocket: [bold]{edge}[/]")
    for label, line in (
        ("ask", f'{us} run --user alice{where} "What does the with statement do?"'),
        ("token", f"{us} token --user alice{where}"),
        ("stop", "^C"),
    ):
        err.print(f"  {label + ':':7} {line}", markup=False)
