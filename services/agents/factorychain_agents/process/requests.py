"""What instances ask for: a few at a time, each answered in parts that fit frames.

Invariant: an instance that asks without end, or does not read its answers, holds up itself alone; what
its requests and their answers weigh keeps to a pace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from factorychain._core.component import detached
from factorychain._core.status import as_error
from factorychain._instance.host import RunHost
from factorychain._process.asked import Asked, pack_problem, unpack_asked
from factorychain._process.messages import number
from factorychain._process.wire import BODIES_MAX_BYTES, REQUESTS_MAX, BrokenFrame, ToInstance
from factorychain_agents.process.host_calls import ASK, HOST_CALLS, Answer
from factorychain_agents.process.instance_process import RunProcess
from factorychain_agents.process.pace import Pace

_BYTES_PER_S: Final = 4 * 1024 * 1024
_BURST_BYTES: Final = 16 * 1024 * 1024
_LEAST_BYTES: Final = 32 * 1024
"""What a request counts for whatever it weighs: each costs the engine reads, which others wait for."""
# Timers are no finer than a millisecond: what is due is paid in larger pieces.
_WORTH_WAITING_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class _UnderWay:
    task: asyncio.Task[None]
    body_bytes: int


class Requests:
    """The requests of one run."""

    def __init__(
        self, process: RunProcess, host: RunHost, in_turn: Callable[[], Awaitable[None]]
    ) -> None:
        """`in_turn` returns when everything that was said until now is passed on."""
        self._process = process
        self._host = host
        self._in_turn = in_turn
        self._pace = Pace(_BYTES_PER_S, _BURST_BYTES)
        self._under_way: dict[int, _UnderWay] = {}

    def take(self, payload: bytes) -> None:
        """Answer one, in time.

        Raises:
            BrokenFrame: it is none, or there are too many.
        """
        request, asked = unpack_asked(payload)
        call = HOST_CALLS.get(asked.call)
        if call is None:
            raise BrokenFrame("this is nothing that an agent may ask for")
        self._admit(request, asked)
        answer = call(self._host, asked)
        if asked.call == ASK:
            answer = partial(self._after, self._in_turn(), answer)
        task = detached(self._answer(request, len(asked.body), answer), name=asked.call)
        self._under_way[request] = _UnderWay(task, len(asked.body))

    def forget(self, request: int) -> None:
        """Nobody waits for this answer any more. It may have been given meanwhile."""
        forgotten = self._under_way.pop(request, None)
        if forgotten is not None:
            forgotten.task.cancel()

    def close(self) -> None:
        """Answer nothing more."""
        for request in list(self._under_way):
            self.forget(request)

    def _admit(self, request: int, asked: Asked) -> None:
        if request in self._under_way:
            raise BrokenFrame("a request has the number of another one")
        if len(self._under_way) >= REQUESTS_MAX:
            raise BrokenFrame(f"more than {REQUESTS_MAX} requests at once")
        weight = sum(each.body_bytes for each in self._under_way.values())
        if weight + len(asked.body) > BODIES_MAX_BYTES:
            raise BrokenFrame("requests that weigh more than may be under way")

    async def _answer(self, request: int, body_bytes: int, answer: Answer) -> None:
        problem = b""
        try:
            await self._pay(max(body_bytes, _LEAST_BYTES))
            for part in await answer():
                await self._pay(len(part))
                self._process.send(ToInstance.ANSWER_PART, number(request) + part)
                await self._process.flushed()
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent's code hears of it
            problem = pack_problem(as_error(error, where="a request of a run process"))
        # Its place is free before the instance hears so, and may ask for the next.
        self._under_way.pop(request, None)
        self._process.send(ToInstance.ANSWER_END, number(request) + problem)

    async def _after(self, turn: Awaitable[None], answer: Answer) -> Sequence[bytes]:
        await turn
        return await answer()

    async def _pay(self, weight_bytes: int) -> None:
        wait_s = self._pace.take(time.monotonic(), weight_bytes)
        if wait_s > _WORTH_WAITING_S:
            await asyncio.sleep(wait_s)
