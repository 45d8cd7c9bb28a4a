"""Answers what agents ask a user, after a while, and again until the answer was taken.

Invariant: a question is only ever given one answer, however often that has to be sent.
"""

from __future__ import annotations

import asyncio
import random

from tests.chaos.client import Client, Lost
from tests.chaos.journal import Journal

_AGAIN_S = 0.3
_TWICE = 0.2
_SOON_S = (0.0, 2.0)
_LATER_S = (3.0, 8.0)
_LATER = 0.15


class Answers:
    """One user's."""

    def __init__(self, name: str, client: Client, journal: Journal, chance: random.Random) -> None:
        self._name, self._client, self._journal, self._chance = name, client, journal, chance

    async def give(self, run: str, question: str, ended: asyncio.Event) -> None:
        """To a run that waits; no more when it has `ended`."""
        await self._think()
        while not ended.is_set():
            if await self._send(run, question) is not None:
                break
            await asyncio.sleep(_AGAIN_S)
        if self._chance.random() < _TWICE:  # as who has clicked twice
            await self._send(run, question)

    async def go_on(self, run: str, question: str) -> str:
        """To a run that has ended with it; the next one."""
        await self._think()
        while True:
            following = await self._send(run, question)
            if following is not None:
                break
            await asyncio.sleep(_AGAIN_S)
        if self._chance.random() < _TWICE:
            await self._send(run, question)
        return following

    async def _think(self) -> None:
        later = self._chance.random() < _LATER
        await asyncio.sleep(self._chance.uniform(*(_LATER_S if later else _SOON_S)))

    async def _send(self, run: str, question: str) -> str | None:
        """The run that goes on; None: it was not taken, or nobody knows."""
        value = f"canary-{self._name}-{run}-{question}"
        await self._client.connected()
        self._journal.note("answering", run=run, question=question, value=value)
        try:
            reply = await self._client.call("respond", run=run, request=question, value=value)
        except Lost:
            return None
        if "error" in reply:
            self._journal.note("unanswered", run=run, question=question, error=reply["error"])
            return None
        following = str(reply["result"]["run"])
        self._journal.note("answered", run=run, question=question, value=value, next=following)
        return following
