"""Passing on a streamed answer, event by event as it comes.

Invariant: an event is passed on whole or not at all, in the vendor's own bytes; a stream that does not
come to its end ends with an event that says so, never silently.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from factorychain._core.logging import get_logger
from factorychain_agents.gateway.asking import BROKEN, DONE, SILENT, Answer
from factorychain_agents.gateway.call import ModelCall
from factorychain_agents.gateway.frames import FrameTooLong, data_of
from factorychain_agents.gateway.refusals import Refusal, unavailable, used_up
from factorychain_agents.gateway.secret import Remover

log = get_logger(__name__)

_SAID_MAX_CHARS = 300


class Passing:
    """One streamed answer."""

    def __init__(
        self, call: ModelCall, answer: Answer, *, hides_usage: bool, max_bytes: int
    ) -> None:
        """To be passed on once.

        Args:
            call: what is answered.
            answer: what has come so far.
            hides_usage: the client has not asked for the event with the usage, the gateway has.
            max_bytes: of the whole answer.
        """
        self._call = call
        self._answer = answer
        self._hides_usage = hides_usage
        self._left_bytes = max_bytes
        self._remover = Remover([call.upstream.secret])
        self._number = 0

    async def to(self, response: web.StreamResponse) -> None:
        """Pass everything on. Afterwards the stream is at its end.

        Raises:
            Refusal: what the stream ended with; the client has been told.
            ConnectionError: the client is gone.
        """
        try:
            await response.write(self._passed(self._answer.first))
            async for frames in self._rest():
                data = self._passed(frames)
                if data:
                    await response.write(data)
            if not self._call.reader.ended:
                raise unavailable("The model's answer broke off")
        except Refusal as refusal:
            await response.write(refusal.frame(self._call.endpoint.form, self._number + 1))
            raise
        finally:
            # The vendor hears at once that nobody listens any more.
            self._answer.response.close()
        await response.write_eof()

    async def _rest(self) -> AsyncIterator[list[bytes]]:
        frames, content = self._answer.frames, self._answer.response.content
        assert frames is not None, "a streamed answer"
        try:
            while data := await content.readany():
                yield frames.feed(data)
        except SILENT as error:
            raise unavailable("The model stopped answering") from error
        except (*BROKEN, FrameTooLong) as error:
            if not self._call.reader.ended:
                raise unavailable("The model's answer broke off") from error
        if frames.rest.strip():
            yield [frames.rest + b"\n\n"]

    def _passed(self, frames: list[bytes]) -> bytes:
        """What the client gets of some events.

        Raises:
            Refusal: the stream is over.
        """
        kept = [each for each in frames if self._keeps(each)]
        exhausted = self._call.progress()
        if exhausted is not None and not self._call.reader.ended:
            raise used_up(exhausted)
        data = self._remover.whole(b"".join(kept))
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise unavailable("The model's answer is larger than the operator allows")
        return data

    def _keeps(self, frame: bytes) -> bool:
        """Read an event; whether the client gets it."""
        data = data_of(frame)
        if not data or data == DONE:
            return True
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise unavailable("The model's answer is not one") from error
        if not isinstance(body, dict):
            raise unavailable("The model's answer is not one")
        reader = self._call.reader
        reader.event(body)
        number = body.get("sequence_number")
        self._number = number if isinstance(number, int) else self._number
        if reader.failed:
            self._tell(data)
            raise unavailable("The model's provider broke off the answer")
        return not (self._hides_usage and body.get("choices") == [] and body.get("usage"))

    def _tell(self, said: bytes) -> None:
        log.warning(
            "a server of models broke off an answer",
            upstream=self._call.upstream.name,
            run=self._call.account.ctx.run,
            said=self._remover.whole(said)[:_SAID_MAX_CHARS].decode("utf-8", "replace"),
        )
