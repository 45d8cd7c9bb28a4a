"""How a run's record is laid out in storage.

A version byte, the hash of the request's body (16 bytes), the stream sequence at admission (8 bytes,
big endian), then a serialized `factorychain.types.v1.Run`. The hash answers whether a repeated
request is the same one; the sequence says from where the log is searched for the ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

from google.protobuf.message import DecodeError

from factorychain.types.v1.run_pb2 import ContextItem, Run, RunState
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.records.endings import timestamp

_HEAD: Final = Struct(">B16sQ")
_VERSION: Final = 1


class UnreadableRecord(Exception):
    """A stored record cannot be read by this version."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run's record and what is stored beside it."""

    run: Run
    request_hash: str
    base: int
    revision: int = 0

    def with_run(self, run: Run) -> StoredRun:
        return replace(self, run=run)


def encode(stored: StoredRun) -> bytes:
    """The record as it is stored."""
    head = _HEAD.pack(_VERSION, bytes.fromhex(stored.request_hash), stored.base)
    return head + stored.run.SerializeToString()


def decode(value: bytes, revision: int) -> StoredRun:
    """Read a record.

    Raises:
        UnreadableRecord: it was written by a later version, or is damaged.
    """
    if len(value) < _HEAD.size or value[0] != _VERSION:
        raise UnreadableRecord(f"a run record of {len(value)} bytes has an unknown layout")
    _, request_hash, base = _HEAD.unpack_from(value)
    try:
        run = Run.FromString(value[_HEAD.size :])
    except DecodeError as error:
        raise UnreadableRecord("a run record is damaged") from error
    return StoredRun(run, request_hash.hex(), base, revision)


def record_of(
    entry: ActiveRun,
    input_json: str = "",
    metadata_json: str = "",
    resumes: str = "",
    context: Sequence[ContextItem] = (),
) -> StoredRun:
    """The record of a run that was just admitted, or as much of it as its place knows."""
    run = Run(
        run=entry.run,
        thread=entry.thread,
        agent=entry.agent,
        state=RunState.RUN_STATE_RUNNING,
        created_at=timestamp(entry.asked_at_s),
        input_json=input_json,
        metadata_json=metadata_json,
        attempt=entry.attempt,
        replaces=entry.replaces,
        trace=entry.trace,
        after=entry.after,
        epoch=entry.epoch,
        resumes=resumes,
        context=context,
    )
    return StoredRun(run, entry.request_hash, entry.base)
