"""A service for the tests of the runtime: says on stdout what happens to its component."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading

gc.disable()  # as the services do

from factorychain._core.component import ComponentGroup
from factorychain._core.runtime import run_service
from factorychain._core.settings import EmitterSettings
from factorychain._core.telemetry import span


class Said:
    """Starts, fails to start, takes for ever to, or leaves something behind, as the argument says."""

    name = "said"
    healthy = True

    def __init__(self, how: str) -> None:
        self._how = how

    async def start(self) -> None:
        print("starting" if gc.isenabled() else "without-collections", flush=True)
        if self._how == "fails":
            raise RuntimeError("port 7103 is in use; choose another")
        if self._how == "hangs":
            await asyncio.Event().wait()
        if self._how == "clings":
            self._clinging = asyncio.create_task(_cling())
        if self._how == "holds-a-thread":
            threading.Thread(target=threading.Event().wait).start()
        with span("work of the sample"):
            print("started", flush=True)

    async def stop(self) -> None:
        print("stopping", flush=True)
        if self._how == "never-stops":
            await asyncio.Event().wait()
        print("stopped", flush=True)


async def _cling() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def build(settings: EmitterSettings) -> ComponentGroup:
    return ComponentGroup([Said(sys.argv[1])], drain_timeout_s=settings.drain_timeout_s)


if __name__ == "__main__":
    run_service("emitter", EmitterSettings, build)
