"""The user record as JSON, so that it can be read with NATS' own tools.

Invariant: a record that was written by another version is read without loss of a place: unknown
fields are ignored, and an entry that cannot be understood is an error, never a free place.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import orjson

from factorychain._core.ids import Principal
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import ActiveRun, Totals, UserRecord

VERSION: Final = 2
_WITHOUT_QUEUE: Final = 1
"""What a record with nobody waiting says, so that an engine which knows no queue reads it, too."""

_QUEUED_FIELDS: Final = frozenset(each.name for each in fields(QueuedRun))
_ACTIVE_FIELDS: Final = frozenset(each.name for each in fields(ActiveRun))
_TOTALS_FIELDS: Final = frozenset(each.name for each in fields(Totals))


class ForeignRecord(Exception):
    """A user record says that it is someone else's, or cannot be read: it must never be used."""


def encode(record: UserRecord) -> bytes:
    """The record as it is stored."""
    stored: dict[str, object] = {
        "version": VERSION if record.queue else _WITHOUT_QUEUE,
        "tenant": record.tenant,
        "user": record.user,
        "active": record.active,
        "totals": record.totals,
    }
    if record.queue:
        stored |= {"queue": record.queue, "queue_owner": record.queue_owner}
    return orjson.dumps(stored)


def decode(value: bytes) -> UserRecord:
    """Read a record.

    Raises:
        ForeignRecord: it cannot be read.
    """
    try:
        raw = orjson.loads(value)
        if raw["version"] > VERSION:
            raise ForeignRecord(
                f"a user record has version {raw['version']}, this engine reads {VERSION}"
            )
        return UserRecord(
            tenant=raw["tenant"],
            user=raw["user"],
            active=tuple(ActiveRun(**_known(each, _ACTIVE_FIELDS)) for each in raw["active"]),
            totals=Totals(**_known(raw.get("totals", {}), _TOTALS_FIELDS)),
            queue=tuple(QueuedRun(**_known(each, _QUEUED_FIELDS)) for each in raw.get("queue", ())),
            queue_owner=raw.get("queue_owner", ""),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ForeignRecord(f"a user record cannot be read: {type(error).__name__}") from error


def decode_for(principal: Principal, value: bytes | None) -> UserRecord:
    """The principal's record; an empty one when there is none.

    Raises:
        ForeignRecord: the record is of another principal (two names with one key) or unreadable.
    """
    if value is None:
        return UserRecord(principal.tenant, principal.user)
    record = decode(value)
    if (record.tenant, record.user) != (principal.tenant, principal.user):
        raise ForeignRecord(f"the record under {principal.ukey} is of another user")
    return record


def _known(raw: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key in names}
