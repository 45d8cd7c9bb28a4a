"""Asking a server of models, again where that is safe: as long as nothing of an answer was passed on.

Invariant: whatever a server does becomes an answer or a `Refusal`; nothing that it sends leads anywhere
else (redirects), is kept (cookies) or is without bound.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
import orjson

from factorychain._core.logging import get_logger
from factorychain._core.settings import GatewaySettings
from factorychain_agents.gateway.call import ModelCall
from factorychain_agents.gateway.frames import Frames, FrameTooLong, data_of
from factorychain_agents.gateway.outgoing import proxy_of
from factorychain_agents.gateway.refusals import Refusal, unavailable
from factorychain_agents.gateway.secret import Remover

log = get_logger(__name__)

_AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_CREDENTIAL: Final = frozenset({401, 403})
_FIRST_WAIT_S: Final = 0.25
_REFUSAL_MAX_BYTES: Final = 64 * 1024
_FRAME_MAX_BYTES: Final = 4 * 1024 * 1024
_SAID_MAX_CHARS: Final = 300
DONE: Final = b"[DONE]"
"""The last event of some protocols, which is no JSON."""
EVENT_STREAM: Final = "text/event-stream"
BROKEN: Final = (aiohttp.ClientError, OSError)
SILENT: Final = TimeoutError


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, and how often it is asked."""

    retries: int
    wait_max_s: float
    connect_s: float
    silence_s: float
    answer_max_bytes: int

    @classmethod
    def of(cls, settings: GatewaySettings) -> Patience:
        return cls(
            settings.llm_retries,
            settings.llm_retry_wait_max_s,
            settings.llm_connect_timeout_s,
            settings.llm_silence_max_s,
            settings.llm_response_max_bytes,
        )

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None, sock_connect=self.connect_s, sock_read=self.silence_s
        )


class VendorRefusal(Exception):
    """The vendor says that the request itself is wrong: the agent's code is to see what it says."""

    def __init__(self, status: int, body: bytes, content_type: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.content_type = content_type


class Answer:
    """An answer that has begun: its first events, or all of it."""

    def __init__(self, response: aiohttp.ClientResponse, frames: Frames | None) -> None:
        self.response = response
        self.frames = frames
        """Cuts what follows; None: the answer is whole."""
        self.first: list[bytes] = []
        self.whole = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not released: unless it was read to its end, its connection would carry the rest to the next.
        self.response.close()


class Asker:
    """Asks for one request of a run."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        patience: Patience,
        call: ModelCall,
        headers: dict[str, str],
    ) -> None:
        """`headers` are the client's that go along."""
        self._session = session
        self._patience = patience
        self._call = call
        self._headers = headers | call.upstream.headers() | {"Accept-Encoding": "identity"}
        self._remover = Remover([call.upstream.secret])

    async def ask(self) -> Answer:
        """Ask until there is an answer, or no sense in asking again.

        Raises:
            Refusal: there is none.
            VendorRefusal: the vendor finds the request wrong.
        """
        body = orjson.dumps(self._call.body)
        for number in range(self._patience.retries + 1):
            try:
                return await self._once(body)
            except _Again as again:
                self._call.refused()
                await self._wait(again.refusal, number)
        raise AssertionError("the last wait raises")

    async def _wait(self, refusal: Refusal, number: int) -> None:
        wait_s = refusal.retry_after_s
        if wait_s is None:
            wait_s = _FIRST_WAIT_S * 2**number * random.uniform(0.75, 1.25)
        most_s = min(self._patience.wait_max_s, self._call.account.left_s)
        if number == self._patience.retries or wait_s > most_s:
            raise refusal
        await asyncio.sleep(wait_s)

    async def _once(self, body: bytes) -> Answer:
        call = self._call
        call.attempt()
        try:
            response = await self._session.post(
                call.upstream.url(call.endpoint.path),
                data=body,
                headers=self._headers,
                proxy=proxy_of(call.upstream.base),
                allow_redirects=False,
                timeout=self._patience.timeout,
            )
        except SILENT as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise _Again(unavailable()) from error
            raise unavailable("The model gave no answer in time") from error
        except BROKEN as error:
            raise _Again(unavailable()) from error
        try:
            return await self._begun(response)
        except BaseException:
            response.close()
            raise

    async def _begun(self, response: aiohttp.ClientResponse) -> Answer:
        if not 200 <= response.status < 300:
            self._call.refused()
            raise await self._refusal(response)
        streamed = response.content_type == EVENT_STREAM
        answer = Answer(response, Frames(_FRAME_MAX_BYTES) if streamed else None)
        try:
            if answer.frames is not None:
                await self._first_frames(answer, answer.frames)
            else:
                answer.whole = await self._read(response)
        except SILENT as error:
            raise unavailable("The model stopped answering") from error
        except (*BROKEN, FrameTooLong) as error:
            raise _Again(unavailable("The model's answer broke off")) from error
        return answer

    async def _first_frames(self, answer: Answer, frames: Frames) -> None:
        while not answer.first:
            data = await answer.response.content.readany()
            if not data:
                raise _Again(unavailable("The model gave no answer"))
            answer.first = frames.feed(data)
        if not all(map(_is_sound, answer.first)):
            raise _Again(unavailable("The model's provider broke off the answer"))
        self._call.began()

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        whole = await read_bounded(response, self._patience.answer_max_bytes)
        if whole is None:
            raise unavailable("The model's answer is larger than the operator allows")
        try:
            found = orjson.loads(whole)
        except orjson.JSONDecodeError as error:
            raise _Again(unavailable("The model's answer is not one")) from error
        if isinstance(found, dict):
            self._call.reader.whole(found)
        return self._remover.whole(whole)

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        """What a status that is no success comes to."""
        try:
            said = await read_bounded(response, _REFUSAL_MAX_BYTES) or b""
        except (*BROKEN, SILENT):
            said = b""
        said, status = self._remover.whole(said), response.status
        if 400 <= status < 500 and status not in _AGAIN | _CREDENTIAL:
            return VendorRefusal(status, said, response.headers.get("Content-Type", ""))
        log.warning(
            "a server of models refused a request",
            upstream=self._call.upstream.name,
            status=status,
            run=self._call.account.ctx.run,
            said=said[:_SAID_MAX_CHARS].decode("utf-8", "replace"),
        )
        if status in _CREDENTIAL:
            return Refusal(502, "MODEL_CREDENTIAL_REFUSED")
        wait_s = retry_after_s(response.headers.get("Retry-After", ""))
        if status == 429:
            refusal = Refusal(429, "MODEL_RATE_LIMITED", retry_after_s=wait_s)
        else:
            refusal = unavailable(retry_after_s=wait_s)
        final = status not in _AGAIN or response.headers.get("x-should-retry") == "false"
        return refusal if final else _Again(refusal)


def _is_sound(frame: bytes) -> bool:
    """Whether an event is no error, as some servers begin an answer with that they cannot give."""
    data = data_of(frame)
    if not data or data == DONE:
        return True
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and not found.get("error") and found.get("type") != "error"


class _Again(Exception):
    """Nothing came of it that keeps it from being asked again."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


async def read_bounded(response: aiohttp.ClientResponse, most_bytes: int) -> bytes | None:
    """The whole body; None if it is larger."""
    parts, length = [], 0
    async for data in response.content.iter_any():
        parts.append(data)
        length += len(data)
        if length > most_bytes:
            return None
    return b"".join(parts)


def retry_after_s(value: str) -> float | None:
    """`Retry-After` in seconds (RFC 9110, 10.2.3): a number or a date; None if it is neither."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
