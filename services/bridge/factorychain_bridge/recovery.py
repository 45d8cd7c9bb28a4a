"""Drives the integration: watches the connections, probes, recovers, and holds work back meanwhile.

Invariant: whoever passes `active()` does so because the last probe of everything succeeded and
nothing has been lost since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.nats_connection import NatsConnection, NatsState
from factorychain._core.stored import NatsUnavailable, StorageRefused
from factorychain._core.telemetry import counter
from factorychain_bridge.integration import Change, Integration, IntegrationState
from factorychain_bridge.log_watch import LogWatch

log = get_logger(__name__)

_transitions = counter("factorychain.bridge.integration_transitions", "Changes of the integration")


class Recovery:
    """A component that keeps `integration` true."""

    name = "integration"

    def __init__(
        self,
        integration: Integration,
        connections: Sequence[NatsConnection],
        probe: Callable[[], Awaitable[None]],
        write: Callable[[], Awaitable[None]],
        watch: LogWatch,
        *,
        look_s: float = 1.0,
        probe_timeout_s: float = 2.0,
    ) -> None:
        """`probe` raises NatsUnavailable or StorageRefused unless everything needed is there, or was made
        again; `write` unless the log takes what is stored. `look_s`: how often `watch` looks.
        """
        self.integration = integration
        self._connections = connections
        self._probe = probe
        self._write = write
        self._watch = watch
        self._look_s = look_s
        self._untaken = False  # the log did not answer to what was to be stored
        self._probe_timeout_s = probe_timeout_s
        self._tasks = TaskSet(self.name)
        self._active = asyncio.Event()
        self._ask = asyncio.Event()
        self._stopping = False
        integration.on_change(self._changed)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy and not self.integration.failed

    async def start(self) -> None:
        """Probe once; what is away then is waited for.

        Raises:
            StorageRefused: The log exists and is not what this service is configured for.
        """
        for connection in self._connections:
            connection.on_state(self._on_state)
        self.integration.begin()
        self._ask.clear()  # it is answered here; whatever comes meanwhile asks again
        problem = await self._problem(refusals=False)
        if problem is None:
            self.integration.works("everything answers")
        else:
            self.integration.lost(problem)
        _ = self._tasks.spawn(self._recover_forever(), "recovery")

    async def stop(self) -> None:
        self._stopping = True  # what closes from now on is no outage
        await self._tasks.close()

    async def active(self) -> None:
        """Wait until the integration is ACTIVE."""
        await self._active.wait()

    def suspect(self) -> None:
        """The log did not answer: find out now whether that is an outage."""
        self._untaken = True
        self._ask.set()

    # --- steps ---------------------------------------------------------------------------------

    def _on_state(self, state: NatsState) -> None:
        if state is NatsState.CONNECTED:
            self._ask.set()  # don't wait for the next attempt's time
        elif not self._stopping:
            self.integration.lost(f"NATS is {state.value}")

    async def _recover_forever(self) -> None:
        while True:
            due = await self._wait()
            if due and self.integration.active:
                if not await self._look_in_passing():
                    continue
                due = False
            problem = await self._problem(refusals=True)
            if problem is None:
                self.integration.works("everything answers again")
            elif due:
                self.integration.attempt_failed(problem)
            else:
                self.integration.lost(problem)

    async def _wait(self) -> bool:
        """Wait for the time of the next attempt or look (True), or for a reason to probe earlier (False)."""
        delay_s = self.integration.next_delay_s
        try:
            async with asyncio.timeout(self._look_s if delay_s is None else delay_s):
                await self._ask.wait()
        except TimeoutError:
            return True
        self._ask.clear()
        return False

    async def _look_in_passing(self) -> bool:
        """A look without a cause, and no answer to it is none either; whether there is one now."""
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                return await self._look()
        except (TimeoutError, NatsUnavailable, StorageRefused) as error:
            log.debug("the log cannot be looked at", cause=str(error))
        except Exception:  # one odd answer must not end recovery
            log.exception("a look at the log failed")
        return False

    async def _look(self) -> bool:
        deleted = await self._watch.look()
        if deleted:
            self.integration.lost("the log was deleted, and is made again")
        return deleted

    async def _problem(self, *, refusals: bool) -> str | None:
        for connection in self._connections:
            if not connection.healthy:
                return f"NATS is {connection.state.value}"
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                _ = await self._look()  # before what is missing is made again
                await self._probe()
                _ = await self._look()  # what is there now is what can be lost
        except TimeoutError:
            return f"JetStream did not answer in {self._probe_timeout_s:g} s"
        except NatsUnavailable as error:
            return error.what
        except StorageRefused as error:
            if not refusals:
                raise
            return str(error)
        return await self._write_problem() if self._untaken else None

    async def _write_problem(self) -> str | None:
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                await self._write()
        except (TimeoutError, NatsUnavailable, StorageRefused):
            return (
                "the log answers and stores nothing; NATS may have no room on its disk, which its"
                " own log says, and needs a restart when there is some again"
            )
        self._untaken = False
        return None

    def _changed(self, change: Change) -> None:
        if change.after is IntegrationState.ACTIVE:
            self._active.set()
        else:
            self._active.clear()
            self._ask.set()  # the loop has to begin to count the delays
        _transitions.add(attributes={"to": change.after.value})
        outage = change.after in (IntegrationState.DEGRADED, IntegrationState.FAILED)
        report = log.error if outage else log.info
        report(
            "integration changed",
            before=change.before.value,
            after=change.after.value,
            cause=change.cause,
        )
