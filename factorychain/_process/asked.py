"""What an instance asks of the service, as it is in a frame, and why there may be no answer.

Invariant: what comes from a run process is checked for shape, type and size here; whoever answers gets
plain values within the limits that he names.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from factorychain._process.messages import json_object, number, numbered
from factorychain._process.wire import REQUEST_BODY_MAX_BYTES, BrokenFrame
from factorychain.errors import ErrorCode, FactoryChainError, error_class
from factorychain.input import Json

_U64: Final = struct.Struct("!Q")
_CALL: Final = "call"
_MESSAGE_MAX_CHARS: Final = 4096
_NAMES_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what is wanted, with which arguments, and bytes beside them."""

    call: str
    arguments: Mapping[str, Json]
    body: bytes = b""

    def text(self, name: str, max_chars: int) -> str:
        """An argument that is text.

        Raises:
            BrokenFrame: it is missing, something else, or longer.
        """
        value = self.arguments.get(name)
        if not isinstance(value, str) or len(value) > max_chars:
            raise BrokenFrame(f"{self.call}: {name} is no text of at most {max_chars} characters")
        return value

    def integer(self, name: str, least: int, most: int) -> int:
        """An argument that is an integer, brought into its range.

        Raises:
            BrokenFrame: it is missing or something else.
        """
        value = self.arguments.get(name)
        if type(value) is not int:
            raise BrokenFrame(f"{self.call}: {name} is no integer")
        return max(least, min(value, most))

    def seconds(self, name: str, most_s: float) -> float:
        """An argument that is a time, brought below its limit.

        Raises:
            BrokenFrame: it is missing, something else, or negative.
        """
        value = self.arguments.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise BrokenFrame(f"{self.call}: {name} is no time")
        return min(float(value), most_s)

    def flag(self, name: str) -> bool:
        """An argument that is true or false; false if it is missing."""
        return self.arguments.get(name) is True


def pack_asked(request: int, asked: Asked) -> bytes:
    """A request with its number."""
    arguments = orjson.dumps({_CALL: asked.call, **asked.arguments})
    return number(request) + number(len(arguments)) + arguments + asked.body


def unpack_asked(payload: bytes) -> tuple[int, Asked]:
    """The inverse of `pack_asked`, of bytes that may be anything.

    Raises:
        BrokenFrame: they are no request.
    """
    request, rest = numbered(payload)
    length, rest = numbered(rest)
    if length > len(rest) or len(rest) - length > REQUEST_BODY_MAX_BYTES:
        raise BrokenFrame("a request of another length than it says")
    arguments = json_object(rest[:length])
    call = arguments.pop(_CALL, None)
    if not isinstance(call, str):
        raise BrokenFrame("a request that asks for nothing")
    return request, Asked(call, arguments, rest[length:])


def pack_problem(error: FactoryChainError) -> bytes:
    """Why there is no answer."""
    return orjson.dumps(
        {
            "kind": error.default_reason,
            "reason": error.reason,
            "message": error.message[:_MESSAGE_MAX_CHARS],
            "code": error.code.value,
            "retry_after_s": error.retry_after_s,
            "names": error.names[:_NAMES_MAX],
            "metadata": error.metadata,
        }
    )


def unpack_problem(payload: bytes) -> FactoryChainError:
    """The error of `pack_problem`, to be raised where the answer is waited for."""
    told = orjson.loads(payload)
    return error_class(told["kind"]).restored(
        told["message"],
        reason=told["reason"],
        code=ErrorCode(told["code"]),
        retry_after_s=told["retry_after_s"],
        names=told["names"],
        metadata=told["metadata"],
    )


def pack_loaded(value: bytes | None, revision: int) -> list[bytes]:
    """A value of the thread, in the parts of an answer."""
    return [pack_revision(revision), *([] if value is None else [value])]


def unpack_loaded(parts: Sequence[bytes]) -> tuple[bytes | None, int]:
    """The inverse of `pack_loaded`."""
    value = parts[1] if len(parts) > 1 else None
    return value, unpack_revision(parts[0])


def pack_revision(revision: int) -> bytes:
    """A revision of a value."""
    return _U64.pack(revision)


def unpack_revision(part: bytes) -> int:
    """The inverse of `pack_revision`."""
    revision: int = _U64.unpack(part)[0]
    return revision
