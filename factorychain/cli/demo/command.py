"""The command: starts a chain of its own, plays every scene, says what held."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.rule import Rule

from factorychain.cli.demo.scenes import Stage, play
from factorychain.cli.demo.timings import show_timings
from factorychain.cli.output import FAILED, err, fail, out
from factorychain.local.datadir import DataDir
from factorychain.local.packages import with_this_code
from factorychain.local.state import ChainState
from factorychain.local.trace_sink import TraceSink

_START_S = 180.0
_STOP_S = 40.0
_POLL_S = 0.1


def demo(
    docs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Ask about these documents instead of the language reference."
        ),
    ] = None,
) -> None:
    """Start a chain, let three users ask at once, refuse, cut, resume, cancel. 0 only if all held."""
    if docs is not None and not docs.is_dir():
        fail(f"--docs {docs}: there is no such folder")
    with tempfile.TemporaryDirectory(prefix="factorychain-demo-") as folder:
        held = asyncio.run(_demo(Path(folder), docs))
    if not held:
        raise typer.Exit(FAILED)


async def _demo(folder: Path, docs: Path | None) -> bool:
    sink = TraceSink()
    await sink.start()
    out.print(Rule("Starting NATS and the four layers"))
    chain = _Chain(folder, docs, sink.endpoint)
    try:
        state = await chain.ready()
        out.print(
            f"edge {state.edge} · " + " · ".join(f"{n} {p[0]}" for n, p in state.pids.items())
        )
        stage = Stage(state.edge, DataDir(folder / "data"))
        held, run = await play(stage)
        held = await show_timings(sink, run) and held
    finally:
        status = await chain.stop()
        await sink.stop()
    if status != 0:
        err.print(f"the chain did not stop cleanly: exit status {status}")
        held = False
    out.print(
        Rule("[bold green]All of it held[/]" if held else "[bold red]Something did not hold[/]")
    )
    return held


class _Chain:
    """`factorychain up` as a child, its log kept for when something goes wrong."""

    def __init__(self, folder: Path, docs: Path | None, otlp_endpoint: str) -> None:
        self._ready_file = folder / "ready.json"
        self._log_file = folder / "chain.log"
        command = [sys.executable, "-P", "-m", "factorychain.cli", "up", "--port", "0"]
        command += ["--data", str(folder / "data"), "--ready-file", str(self._ready_file)]
        command += ["--agents", "factorychain.cli.demo.agents"]
        command += ["--docs", str(docs)] if docs is not None else []
        env = os.environ | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=with_this_code(env), stdout=log, stderr=log
            )

    async def ready(self) -> ChainState:
        """Waits until everything serves; ends the command if it does not come up."""
        state = await self._state()
        if state is None:
            err.print(self._log_file.read_text(errors="replace")[-4000:], markup=False)
            fail("the chain did not start; its log stands above", status=FAILED)
        return state

    async def _state(self) -> ChainState | None:
        for _ in range(int(_START_S / _POLL_S)):
            state = ChainState.read(self._ready_file)
            if state is not None or self._process.poll() is not None:
                return state
            await asyncio.sleep(_POLL_S)
        return None

    async def stop(self) -> int:
        """Stops it as ^C does; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return await asyncio.to_thread(self._process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)
