"""The replicas of the agents layer: who they are, how to reach each, and how much room they have.

Invariant: a channel stays open as long as a call uses it, also when its replica is no longer one of the
layer's: a run is followed where it was accepted until it is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from factorychain._core.component import TaskSet, detached
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.logging import get_logger
from factorychain.agents.v1 import agents_pb2, agents_pb2_grpc
from factorychain.errors import Capacity, ChainDegraded, ErrorCode, FactoryChainError
from factorychain_engine.agents.balance import Balance, Load, Order
from factorychain_engine.agents.resolving import Resolve
from factorychain_engine.retry import spread

log = get_logger(__name__)

LAYER: Final = "agents"
LOOK_S: Final = 1.0
"""How often replicas are asked for their room."""
LOOKS_TO_RESOLVE: Final = 5
"""The layer's name is looked up every so many looks."""
LEAST_BETWEEN_S: Final = 0.2
"""What was heard so lately is not asked again."""
_CLOCK_TICK_S: Final = 0.001
ANSWER_WITHIN_S: Final = 1.0
READY_WITHIN_S: Final = 3.0
"""How long a start waits for a first replica that is there and takes runs; resolving a name may take as
long.
"""


class Replica:
    """One address of the layer."""

    def __init__(self, address: str, channel: GrpcChannel) -> None:
        self.address = address
        self.channel = channel
        self.stub = agents_pb2_grpc.AgentsServiceStub(channel.channel)
        self.users = 0

    def let_go(self) -> None:
        self.users -= 1


class Replicas:
    """A component: knows the replicas."""

    name = LAYER

    def __init__(
        self, target: str, connect: Callable[[str], GrpcChannel], resolve: Resolve
    ) -> None:
        """`connect` makes a channel to an address; `target` is the layer as a whole."""
        self._target = target
        self._connect = connect
        self._resolve = resolve
        self.balance = Balance(random.randrange)
        self._open: dict[str, Replica] = {}
        self._advertised: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked_at_s = float("-inf")
        self._resolved = False
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        await self._resolve_all()
        _ = self._tasks.spawn(self._look_for_ever(), "look")

    async def stop(self) -> None:
        await self._tasks.close()
        replicas = list(self._open.values())
        self._open.clear()
        for each in replicas:
            await each.channel.stop()

    # --- whom to ask ------------------------------------------------------------------------

    def order(self) -> Order:
        """Whom to ask to take a run."""
        return self.balance.order(self._connected)

    def room(self) -> int | None:
        """Places that are free in all; None: not known."""
        return self.balance.room(self._connected)

    async def ready(self) -> None:
        """Return when there is somebody to ask to take a run.

        Raises:
            Capacity: all replicas are full.
            ChainDegraded: none is there, or takes runs within `READY_WITHIN_S`.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + READY_WITHIN_S
        order = self.order()
        if order.addresses:
            return
        await self.connected()
        while True:
            if order.room_in_s is None:  # those who are starting take runs within a moment
                await self._may_look()
            await self.look()
            order = self.order()
            refusal = self.refusal(order)
            if refusal is None:
                return
            if order.room_in_s is not None or loop.time() >= until_s:
                raise refusal

    def refusal(self, order: Order) -> FactoryChainError | None:
        """Why nobody is asked; None: somebody is."""
        if order.addresses:
            return None
        if order.room_in_s is None:
            return ChainDegraded(LAYER)
        return Capacity(retry_after_s=spread(order.room_in_s))

    # --- how to reach them ------------------------------------------------------------------

    def _all(self) -> list[Replica]:
        """Those of the layer now."""
        return [self.find(each) for each in self.balance.addresses]

    def find(self, address: str) -> Replica:
        """The replica at an address, or of that advertised address."""
        address = self._advertised.get(address, address)
        replica = self._open.get(address)
        if replica is None:
            replica = self._open[address] = Replica(address, self._connect(address))
        return replica

    @asynccontextmanager
    async def using(self, replica: Replica) -> AsyncIterator[Replica]:
        """Keeps it open for a call."""
        replica.users += 1
        try:
            yield replica
        finally:
            replica.users -= 1

    def _connected(self, address: str) -> bool:
        replica = self._open.get(address)
        return replica is not None and replica.channel.connected

    async def connected(self) -> list[Replica]:
        """Those that can be reached; while there are none they are waited for a moment."""
        if not self._resolved:
            await self.look()
        if not any(self._connected(each) for each in self.balance.addresses):
            await self._connected_soon()
        return [each for each in self._all() if each.channel.connected]

    async def _connected_soon(self) -> None:
        """Wait a moment for any of them."""
        waiting = [
            detached(each.channel.channel.channel_ready(), name="ready") for each in self._all()
        ]
        if not waiting:
            return
        try:
            await asyncio.wait(waiting, timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    # --- looking after them -----------------------------------------------------------------

    async def look(self) -> None:
        """Ask all for their room, together with whoever wants to know at the same time."""
        now_s = asyncio.get_running_loop().time()
        if self._looking is None or self._looking.done():
            if now_s - self._looked_at_s < LEAST_BETWEEN_S:
                return
            self._looking = self._tasks.spawn(self._look(), "ask")
        await asyncio.shield(self._looking)

    async def _may_look(self) -> None:
        """Wait until they may be asked again. A timer may ring early by the clock that counts here (uvloop)."""
        loop = asyncio.get_running_loop()
        while (gone_s := loop.time() - self._looked_at_s) < LEAST_BETWEEN_S:  # noqa: ASYNC110 - of time alone
            await asyncio.sleep(max(LEAST_BETWEEN_S - gone_s, _CLOCK_TICK_S))

    async def _look_for_ever(self) -> None:
        while True:
            for _ in range(LOOKS_TO_RESOLVE):
                await self.look()
                await asyncio.sleep(LOOK_S)
            self._resolved = False

    async def _look(self) -> None:
        if not self._resolved:
            await self._resolve_all()
        await asyncio.gather(*(self._ask(each) for each in self._all()))
        await self._close_unused()
        self._looked_at_s = asyncio.get_running_loop().time()

    async def _resolve_all(self) -> None:
        known = self.balance.addresses
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                found = tuple(await self._resolve(self._target))
        except (OSError, UnicodeError, TimeoutError) as error:
            log.warning("the agents' name cannot be resolved", name=self._target, cause=str(error))
            return  # the replicas that are known stay, and it is tried again with the next look
        self._resolved = True
        if found != known:
            self.balance.resolved(found)
            log.info("the agents' replicas have changed", addresses=found)
        for each in found:
            await self.find(each).channel.start()

    async def _ask(self, replica: Replica) -> None:
        if not replica.channel.connected:
            self.balance.unmeasured(replica.address)  # another process may be there next
            return
        try:
            said = await replica.stub.GetLoad(agents_pb2.GetLoadRequest(), timeout=ANSWER_WITHIN_S)
        except FactoryChainError as error:
            if error.code is not ErrorCode.UNIMPLEMENTED and self._connected(replica.address):
                self.balance.silent(replica.address)
            else:
                self.balance.unmeasured(replica.address)
            return
        self._advertised[said.address] = replica.address
        load = Load(
            said.boot_id, said.running, said.capacity, said.accepting, said.room_in_ms / 1000
        )
        self.balance.heard(replica.address, load)

    async def _close_unused(self) -> None:
        """Those that are no longer of the layer, once nothing is done there."""
        for address in set(self._open) - set(self.balance.addresses):
            replica = self._open[address]
            if replica.users == 0:
                del self._open[address]
                for said in [each for each, at in self._advertised.items() if at == address]:
                    del self._advertised[said]
                await replica.channel.stop()
