"""What instances ask for: a few at a time, each answered in parts that fit frames.

Invariant: an instance that asks without end, or does not read its answers, holds up itself alone.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson

from factorychain._core.component import detached
from factorychain._core.status import as_error
from factorychain._instance.host import RunHost
from factorychain._process.messages import json_object, number, numbered
from factorychain._process.wire import BrokenFrame, ToInstance
from factorychain.input import Json
from factorychain_agents.process.instance_process import RunProcess

_AT_ONCE: Final = 16
_HISTORY_MAX: Final = 1000


class Requests:
    """The requests of one run."""

    def __init__(self, process: RunProcess, host: RunHost) -> None:
        self._process = process
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, payload: bytes) -> None:
        """Answer one, in time.

        Raises:
            BrokenFrame: it is none, or there are too many.
        """
        request, body = numbered(payload)
        fields = json_object(body)
        limit = fields.get("limit")
        if fields.get("name") != "history" or not isinstance(limit, int):
            raise BrokenFrame("this is nothing that an agent may ask for")
        if len(self._tasks) >= _AT_ONCE:
            raise BrokenFrame(f"more than {_AT_ONCE} requests at once")
        task = detached(self._history(request, max(1, min(limit, _HISTORY_MAX))), name="history")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Answer nothing more."""
        for each in self._tasks:
            each.cancel()

    async def _history(self, request: int, limit: int) -> None:
        problem: dict[str, Json] = {}
        try:
            for record in await self._host.history(limit):
                self._process.send(ToInstance.ANSWER_PART, number(request) + record)
                await self._process.flushed()
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent's code hears of it
            told = as_error(error, where="history for a run process")
            problem = {"reason": told.reason, "message": told.message, "code": told.code.value}
        end = orjson.dumps(problem) if problem else b""
        self._process.send(ToInstance.ANSWER_END, number(request) + end)
