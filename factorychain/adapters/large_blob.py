"""One value of any size in a thread's named blobs, each of which is small.

Invariant: what is read is what was stored last as a whole. What does not fit into the first blob lies in
others, which are written before the first names them and never changed while it does.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final, Protocol

import orjson

from factorychain.errors import AgentError, StateLimit

_PART_BYTES: Final = 384 * 1024
_PARTS_MAX: Final = 32
_HEAD_MAX_BYTES: Final = 4096


class Blobs(Protocol):
    """Named blobs of a thread: the host of a run."""

    async def load(self, name: str) -> tuple[bytes | None, int]:
        """A blob and its revision; None and 0 for one that is not there."""
        ...

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        """Put a blob in the place of this revision; None takes it away. Answers the new revision.

        Raises:
            StateConflict: the blob is no longer at this revision.
        """
        ...


class LargeBlob:
    """A value under a name. One run at a time has it."""

    def __init__(self, blobs: Blobs, name: str) -> None:
        self._blobs = blobs
        self._name = name
        self._revision = 0
        self._slot = 0
        self._parts = 0

    async def load(self) -> bytes | None:
        """The value; None: there is none, or it is damaged."""
        found, self._revision = await self._blobs.load(self._name)
        if found is None:
            return None
        try:
            head, inline = _split(found)
            self._slot, self._parts = int(head["slot"]), int(head["parts"])
            parts = [await self._blobs.load(self._part(each)) for each in range(self._parts)]
            packed = b"".join([inline, *(part or b"" for part, _ in parts)])
            return zlib.decompress(packed) if _digest(packed) == head["digest"] else None
        except (ValueError, KeyError, TypeError, zlib.error):
            return None

    async def store(self, value: bytes) -> None:
        """Put it in the place of what was loaded.

        Raises:
            StateConflict: another run has stored it meanwhile.
            AgentError: STATE_TOO_LARGE.
        """
        packed = zlib.compress(value, 1)
        pieces = [packed[at : at + _PART_BYTES] for at in range(0, len(packed), _PART_BYTES)]
        try:
            if len(pieces) > _PARTS_MAX:
                raise StateLimit(f"{len(packed)} bytes are more than {_PARTS_MAX} parts hold")
            await self._store(packed, pieces)
        except StateLimit as error:
            raise AgentError(
                "This conversation has become too long to be remembered; start a new one",
                reason="STATE_TOO_LARGE",
            ) from error

    async def remove(self) -> None:
        """Nothing is kept any more.

        Raises:
            StateConflict: another run has stored it meanwhile.
        """
        if self._revision:
            self._revision = await self._blobs.store(self._name, None, self._revision)
        for at in range(self._parts):
            await self._put(self._part(at), None)
        self._parts = 0

    async def _store(self, packed: bytes, pieces: list[bytes]) -> None:
        alone = len(pieces) == 1
        before, parts = self._parts, 0 if alone else len(pieces)
        old = [self._part(each) for each in range(before)]
        if parts:
            self._slot = 1 - self._slot
            for at, piece in enumerate(pieces):
                await self._put(self._part(at), piece)
        head = {"slot": self._slot, "parts": parts, "digest": _digest(packed)}
        whole = orjson.dumps(head) + b"\n" + (packed if alone else b"")
        self._revision = await self._blobs.store(self._name, whole, self._revision)
        self._parts = parts
        for name in old:
            await self._put(name, None)

    def _part(self, at: int) -> str:
        return f"{self._name}:{self._slot}.{at}"

    async def _put(self, name: str, value: bytes | None) -> None:
        """Whatever is there: of a part, only the name that the head has for it counts."""
        found, revision = await self._blobs.load(name)
        if found is not None or value is not None:
            await self._blobs.store(name, value, revision)


def _split(found: bytes) -> tuple[dict[str, str], bytes]:
    line, _, rest = found.partition(b"\n")
    if len(line) > _HEAD_MAX_BYTES:
        raise ValueError("this is no head")
    head = orjson.loads(line)
    if not isinstance(head, dict):
        raise TypeError("this is no head")
    return head, rest


def _digest(packed: bytes) -> str:
    return hashlib.blake2b(packed, digest_size=16).hexdigest()
