"""Runs one service as a process: configuration, logs, telemetry, start, signals, drain.

Invariants: a wrong configuration ends with status 2 and says what is wrong with it before anything
is opened; SIGTERM and SIGINT drain, also in the middle of the start, and what holds on to a task or a
thread afterwards does not keep the process; a second one ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any, NoReturn, TypeVar

import uvloop
from pydantic import ValidationError

from factorychain._core import logging, telemetry
from factorychain._core.component import Component, ComponentGroup
from factorychain._core.crash_points import die_as_told
from factorychain._core.settings import CommonSettings, Misconfigured, settings_problem
from factorychain._core.statistics import StatisticsOnSignal
from factorychain._core.watchdog import HealthWatch, LoopWatchdog
from factorychain._sandbox.slices import take_short_slices

log = logging.get_logger(__name__)

S = TypeVar("S", bound=CommonSettings)

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
_LET_GO_S = 1.0

_COLLECT_AFTER = 10_000


def version() -> str:
    """The installed version; works in place without an install too."""
    try:
        return metadata.version("factorychain")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"


def run_service(
    name: str, settings_type: type[S], build: Callable[[S], Awaitable[Component]]
) -> NoReturn:
    """Runs a service until it is told to stop, and exits.

    `build` makes the components, in the running loop, from settings that were checked; it opens
    nothing, that is what `start` is for. Exit status: 0 drained, 1 did not start, 2 configuration.
    """
    # What was imported stays; collections were off meanwhile.
    gc.freeze()
    gc.enable()
    settings = load(settings_type)
    take_short_slices()  # before there is any other thread
    logging.configure(name, level=settings.log_level, log_format=settings.log_format)
    if settings.crash_file is not None:
        die_as_told(settings.crash_file)
    sys.exit(uvloop.run(_serve(name, settings, build)))


def load(settings_type: type[S]) -> S:
    """The settings from the environment; exits with status 2 if something is wrong in it."""
    try:
        return settings_type()
    except ValidationError as error:
        _say_wrong(settings_problem(error))
        sys.exit(EXIT_CONFIGURATION)


def _say_wrong(problem: str) -> None:
    sys.stderr.write(f"The configuration is wrong:\n{problem}\n")


async def _serve(name: str, settings: S, build: Callable[[S], Awaitable[Component]]) -> int:
    began_s = time.perf_counter()
    stopping = _stop_on_signals()
    asyncio.get_running_loop().set_exception_handler(_unheard)
    try:
        group = await _compose(name, settings, build)
        if await _start(group, stopping):
            log.info("ready", ms=round((time.perf_counter() - began_s) * 1e3))
            await stopping.wait()
    except Misconfigured as error:
        _say_wrong(str(error))
        _leave_reason(settings, str(error))
        return EXIT_CONFIGURATION
    except Exception as error:
        # The whole traceback is for debugging; what to do stands in the message.
        log.error("the service did not start", error=str(error), kind=type(error).__name__)
        log.debug("the service did not start", exc_info=error)
        _leave_reason(settings, str(error))
        return EXIT_FAILED
    log.info("draining")
    await group.stop()
    log.info("stopped")
    _end_soon(0)
    return 0


def _end_soon(status: int) -> None:
    """Everything is stopped and flushed: code that lets go of no task or thread is not waited for."""

    def end() -> None:
        log.warning("code that does not stop was left")
        os._exit(status)

    guard = threading.Timer(_LET_GO_S, end)
    guard.daemon = True
    guard.start()


def _leave_reason(settings: CommonSettings, reason: str) -> None:
    if settings.termination_file is not None:
        with contextlib.suppress(OSError):
            settings.termination_file.write_text(reason)


async def _compose(
    name: str, settings: S, build: Callable[[S], Awaitable[Component]]
) -> ComponentGroup:
    service = await build(settings)
    inner = service if isinstance(service, ComponentGroup) else ComponentGroup([service])
    components: list[Component] = [
        telemetry.setup(name, version()),
        LoopWatchdog(),
        StatisticsOnSignal(),
        inner,
        HealthWatch(inner),
    ]
    # A little longer than the inner group, so that telemetry still flushes after a full drain.
    return ComponentGroup(components, name=name, drain_timeout_s=settings.drain_timeout_s + 5)


async def _start(group: ComponentGroup, stopping: asyncio.Event) -> bool:
    """Starts it, unless it is told to stop meanwhile; False then."""
    starting = asyncio.ensure_future(group.start())
    told = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    starting.result()
    # What is there now stays; later collections need not look at it.
    gc.collect()
    gc.freeze()
    # Of what a call makes little is cyclic: looking for it less often costs next to no memory.
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    return True


def _stop_on_signals() -> asyncio.Event:
    stopping = asyncio.Event()

    def told(number: signal.Signals) -> None:
        if stopping.is_set():
            log.warning("told twice, ending at once", signal=number.name)
            os._exit(EXIT_FAILED)
        log.info("told to stop", signal=number.name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told, number)
    return stopping


def _unheard(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A failure in a callback, or of a task that nobody awaited."""
    log.error(
        "a failure nobody handled",
        what=str(context.get("message", "")),
        exc_info=context.get("exception"),
    )
