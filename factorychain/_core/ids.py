"""Names: principals, threads, runs, and the NATS subjects made of them.

Invariant: every name derived here is a pure function of its parts, and parts are length-prefixed
before they are hashed, so no two different pairs of (tenant, user) or of (principal, request id)
share a key however their texts are cut.
"""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

from factorychain.errors import InvalidField, RunNotFound

DEFAULT_TENANT = "default"

_KEY_BYTES = 12  # 96 bits, 24 hex characters
_RUN_BYTES = 15  # 120 bits, exactly 24 base32 characters
_THREAD = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_RUN = re.compile(r"r[a-z2-7]{24}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Principal:
    """Who is served: a user of a tenant, always taken from a verified token.

    `ukey` names the principal in subjects and keys: 24 hex characters, safe as one NATS token.
    """

    tenant: str
    user: str
    ukey: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.tenant or not self.user:
            raise ValueError("a principal needs a tenant and a user")
        object.__setattr__(
            self, "ukey", _digest(b"fc-user", _KEY_BYTES, self.tenant, self.user).hex()
        )


@lru_cache(maxsize=4096)
def thread_key(thread: str) -> str:
    """The thread's name in subjects and keys; the same id under two users has two subjects."""
    return _digest(b"fc-thread", _KEY_BYTES, thread).hex()


def shard_of(ukey: str, tkey: str, shards: int) -> int:
    """The shard that holds a thread's log; fixed as long as `shards` is."""
    return (int(ukey[:8], 16) ^ int(tkey[:8], 16)) % shards


def log_stream(shard: int) -> str:
    """Name of the JetStream stream that holds a shard of the log."""
    return f"EVENTS-{shard}"


def log_subject(shards: int, ukey: str, tkey: str) -> str:
    """Where a thread's log is stored."""
    return f"ev.{shard_of(ukey, tkey, shards)}.{ukey}.{tkey}"


def live_filter(ukey: str) -> str:
    """Everything live of one user."""
    return f"live.*.{ukey}.*"


def new_request_id() -> str:
    """A request id for a caller who gave none."""
    return secrets.token_hex(16)


def run_id_for(principal: Principal, request_id: str) -> str:
    """The run that this request of this principal makes, whoever computes it and how often."""
    digest = _digest(b"fc-run", _RUN_BYTES, principal.tenant, principal.user, request_id)
    return "r" + b32encode(digest).decode("ascii").lower()


def resumed_run_id(principal: Principal, run: str) -> str:
    """The run that goes on for one that has ended with requests, whoever computes it and how often."""
    # No client's request id has such a character.
    return run_id_for(principal, f"\x00resume {run}")


def thread_id_for(run: str) -> str:
    """The thread of a run that was started without one."""
    return "t" + run[1:]


def parse_thread_id(value: str, field: str = "thread") -> str:
    """Return `value` if it may name a thread.

    Raises:
        InvalidField: it may not.
    """
    if not _THREAD.match(value):
        raise InvalidField(field, "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return value


def parse_run_id(value: str, field: str = "run") -> str:
    """Return `value` if it has the form of a run id.

    Clients are told nothing of that form: what has another one is a run that is not there.

    Raises:
        InvalidField: it is empty.
        RunNotFound: it has another form.
    """
    if not value:
        raise InvalidField(field, "is required, the id of a run")
    if not _RUN.match(value):
        raise RunNotFound
    return value


def _digest(purpose: bytes, size_bytes: int, *parts: str) -> bytes:
    hashed = blake2b(digest_size=size_bytes, person=purpose)
    for part in parts:
        encoded = part.encode()
        hashed.update(len(encoded).to_bytes(4, "big"))
        hashed.update(encoded)
    return hashed.digest()
