"""`factorychain up`: the whole chain on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from factorychain._core.settings import PREFIX
from factorychain.builtin.researcher.documents import read_folder
from factorychain.cli import options
from factorychain.cli.output import command_line, err, fail
from factorychain.errors import AgentError
from factorychain.local.chain import ChainOptions, ChainPlan, plan_chain
from factorychain.local.datadir import DEFAULT, DataDir, DataDirUnusable
from factorychain.local.ports import NoFreePort, is_free
from factorychain.local.supervisor import ChainDidNotStart, SourceWatcher, Supervisor


class Isolation(StrEnum):
    """How a run is kept apart from the others."""

    PROCESS = "process"
    TASK = "task"


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
    isolation: Annotated[Isolation, typer.Option(help="How runs are kept apart.")] = Isolation.TASK,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart the agents when a .py file here changes.")
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Written when everything serves, and on restarts."),
    ] = None,
) -> None:
    """Start NATS and the four layers, restart what dies, stop all on ^C."""
    options.check_environment()
    _check(port, docs, isolation)
    directory = DataDir(data)
    try:
        directory.prepare()
    except DataDirUnusable as error:
        fail(str(error))
    try:
        chain = ChainOptions(port, agents or (), docs, isolation.value, _environment())
        plan = _plan(chain, directory)
        supervisor = Supervisor(plan, directory, ready_file=ready_file, report=_report)
        asyncio.run(_serve(supervisor, directory, reload))
    except ChainDidNotStart as error:
        fail(str(error))
    finally:
        directory.release()


def _environment() -> dict[str, str]:
    """On a terminal the layers only say what is wrong, so that what agents print is seen."""
    level = f"{PREFIX}LOG_LEVEL"
    return {level: "warning"} if err.is_terminal and not os.environ.get(level) else {}


def _check(port: int, docs: Path | None, isolation: Isolation) -> None:
    if docs is not None:
        _check_documents(docs)
    if isolation is Isolation.PROCESS:
        fail(
            "--isolation process: a process for each run comes with a later version",
            "--isolation task",
        )
    if port and not is_free(port):
        fail(
            f"port {port} is in use",
            f"factorychain up --port {port + 1}   (or --port 0 for any free port)",
        )


def _check_documents(docs: Path) -> None:
    try:
        read_folder(docs)
    except AgentError as error:
        fail(f"--docs: {error}", "the path of a folder of .txt and .md files")


def _plan(chain: ChainOptions, directory: DataDir) -> ChainPlan:
    try:
        return plan_chain(chain, directory)
    except (NoFreePort, FileNotFoundError) as error:
        fail(str(error))


async def _serve(supervisor: Supervisor, data: DataDir, reload: bool) -> None:
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
            async with _watching(supervisor) if reload else contextlib.nullcontext():
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
async def _watching(supervisor: Supervisor) -> AsyncIterator[None]:
    def changed(path: Path) -> None:
        err.print(f"{path} changed: restarting the agents")
        supervisor.restart("agents")

    task = asyncio.create_task(SourceWatcher(Path.cwd(), changed).run())
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
