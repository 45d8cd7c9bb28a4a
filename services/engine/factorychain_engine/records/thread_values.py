"""What agents keep between the runs of a thread: named values, changed by compare-and-set.

Invariant: thread and principal come from the run's token alone. Nothing is stored for a run that has
lost its place, so that an agent which wakes up after its run was settled changes nothing under the next
one. A store whose answer was lost may be repeated: it finds itself and succeeds.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final, Protocol

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal, thread_key
from factorychain._core.stored import KvEntry, WrongLastSequence
from factorychain.errors import (
    AttemptSuperseded,
    InvalidField,
    RunEnded,
    StateConflict,
    StateLimit,
)
from factorychain_engine.records import stored_value
from factorychain_engine.records.stored_value import StoredValue
from factorychain_engine.records.users_store import Versioned

_NAME: Final = re.compile(r"[a-z0-9._:-]{1,128}")
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


class Bucket(Protocol):
    """What is needed of `KvBucket`."""

    async def read(self, key: str) -> KvEntry: ...

    async def update(self, key: str, value: bytes, revision: int) -> int: ...

    async def delete(self, key: str, revision: int | None = None) -> int: ...

    async def keys(self, pattern: str = ">") -> list[str]: ...


class Users(Protocol):
    """What is needed of `UsersStore`."""

    async def read(self, principal: Principal) -> Versioned: ...


@dataclass(frozen=True, slots=True)
class ValueLimits:
    """What one thread may keep."""

    value_max_bytes: int
    values_max: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A value and the revision that replaces it must name; without one the revision is 0."""

    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One store."""

    name: str
    value: bytes | None
    """None removes it."""
    revision: int
    """What it replaces; 0: nothing is stored."""
    request_id: str
    """The same when it is repeated."""


class ThreadValues:
    """The values of threads, under `<ukey>.<tkey>.<name>`.

    Every method raises NatsUnavailable if storage is away.
    """

    def __init__(self, bucket: Bucket, users: Users, limits: ValueLimits) -> None:
        self._bucket = bucket
        self._users = users
        self._limits = limits

    async def load(self, context: UserExecutionContext, name: str) -> Loaded:
        """The value of this name in the context's thread.

        Raises:
            InvalidField: it is no name.
            RunEnded: the run has lost its place.
            AttemptSuperseded: another attempt of the run has it.
        """
        _check_name(name)
        found, _ = await asyncio.gather(self._read(context, name), self._check_place(context))
        stored, revision = found
        return Loaded(None, 0) if stored is None else Loaded(stored.value, revision)

    async def store(self, context: UserExecutionContext, change: Change) -> int:
        """Change a value; its new revision, 0 if it was removed.

        Raises:
            InvalidField: it is no name, or the request id is none.
            StateLimit: the value is too large, or the thread keeps too many.
            StateConflict: the value has another revision; nothing was changed.
            RunEnded: the run has lost its place.
            AttemptSuperseded: another attempt of the run has it.
        """
        _check_name(change.name)
        if not _REQUEST_ID.fullmatch(change.request_id):
            raise InvalidField("request_id", "expected 1 to 128 visible ASCII characters")
        self._check_size(change)
        await self._check_place(context)
        if change.value is not None and not change.revision:
            await self._check_count(context)
        try:
            return await self._write(context, change, change.revision)
        except WrongLastSequence:
            return await self._write_again(context, change)

    async def _write(self, context: UserExecutionContext, change: Change, revision: int) -> int:
        key = _key(context, change.name)
        if change.value is None:
            crash_point("engine.value.removing")
            await self._bucket.delete(key, revision)
            crash_point("engine.value.removed")
            return 0
        stored = StoredValue(change.value, change.request_id)
        encoded = stored_value.encode(context, change.name, stored)
        crash_point("engine.value.storing")
        replaced = await self._bucket.update(key, encoded, revision)
        crash_point("engine.value.stored")
        return replaced

    async def _write_again(self, context: UserExecutionContext, change: Change) -> int:
        """Something else is stored than was expected: this change itself, the marker of what was
        removed, or another one's.
        """
        stored, revision = await self._read(context, change.name)
        if stored is None:
            if change.value is None:  # removed already
                return 0
            if not change.revision:
                try:
                    return await self._write(context, change, revision)
                except WrongLastSequence:
                    stored, revision = await self._read(context, change.name)
        if stored is not None and stored.request_id == change.request_id:
            return revision
        raise StateConflict(change.name)

    async def _read(
        self, context: UserExecutionContext, name: str
    ) -> tuple[StoredValue | None, int]:
        entry = await self._bucket.read(_key(context, name))
        if entry.value is None:
            return None, entry.revision
        return stored_value.decode(context, name, entry.value), entry.revision

    async def _check_place(self, context: UserExecutionContext) -> None:
        found = (await self._users.read(context.principal)).record.find(context.run)
        if found is None or found.thread != context.thread:
            raise RunEnded
        if found.attempt > context.attempt:
            raise AttemptSuperseded

    def _check_size(self, change: Change) -> None:
        limit = self._limits.value_max_bytes
        if change.value is not None and len(change.value) > limit:
            raise StateLimit(
                f"{change.name} has {len(change.value)} bytes; what an agent keeps in a conversation "
                f"may have {limit} (FACTORYCHAIN_STATE_VALUE_MAX_BYTES)"
            )

    async def _check_count(self, context: UserExecutionContext) -> None:
        limit = self._limits.values_max
        if len(await self._bucket.keys(_key(context, "*"))) >= limit:
            raise StateLimit(
                f"this conversation keeps {limit} values already (FACTORYCHAIN_STATE_VALUES_MAX)"
            )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidField("name", "expected 1 to 128 characters of a-z, 0-9 and ._:-")


def _key(context: UserExecutionContext, name: str) -> str:
    # One token of a subject: a dot would begin another.
    token = name.replace(".", "=2E").replace(":", "=3A")
    return f"{context.principal.ukey}.{thread_key(context.thread)}.{token}"
