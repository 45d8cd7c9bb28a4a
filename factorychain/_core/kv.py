"""Buckets of records on JetStream, laid out as NATS key-value buckets are, so that its tools read them.

Invariant: every write that must not overwrite another names the revision that it replaces; there is
no write between. Reads of single keys ask the leader.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from factorychain._core.jetstream import JetStream, Stream, TooManySubjects
from factorychain._core.stored import (
    KvEntry,
    StoredMessage,
    StreamContents,
    WrongLastSequence,
)
from factorychain._core.stream_config import StreamConfig

_OPERATION = "KV-Operation"
_TRY = "try"
_TRY_KEPT = "10s"
_TRY_BYTES = 1024
_LIST_PAGE = 256
_LIST_MAX_SUBJECTS = 1000


def bucket_config(
    name: str, *, max_age_s: float = 0, replicas: int = 1, max_value_bytes: int = -1
) -> StreamConfig:
    """The stream of a bucket. `max_age_s` counts from a key's last write; 0 keeps it for ever."""
    return StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        max_age_s=max_age_s,
        max_msgs_per_subject=1,
        max_msg_size=max_value_bytes,
        replicas=replicas,
        rollup=True,
        discard_new=True,
    )


async def ensure_bucket(
    js: JetStream, name: str, *, max_age_s: float = 0, replicas: int = 1, max_value_bytes: int = -1
) -> KvBucket:
    """Create the bucket, or bring an existing one to this configuration."""
    config = bucket_config(
        name, max_age_s=max_age_s, replicas=replicas, max_value_bytes=max_value_bytes
    )
    return KvBucket(await js.ensure_stream(config), name)


class KvBucket:
    """One bucket. Keys are dotted tokens of `A-Z a-z 0-9 _ = / -`."""

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream = stream
        self._prefix = f"$KV.{name}."

    @classmethod
    def of(cls, js: JetStream, name: str) -> KvBucket:
        """A bucket that another service makes."""
        return cls(js.stream(f"KV_{name}"), name)

    async def read(self, key: str) -> KvEntry:
        """What is stored under `key`, with the revision that a compare-and-set must name."""
        message = await self._stream.last_message(self._prefix + key)
        return KvEntry(key, None, 0) if message is None else self._entry(message)

    async def get(self, key: str) -> KvEntry | None:
        """What is stored under `key`; None if it does not exist."""
        entry = await self.read(key)
        return None if entry.value is None else entry

    async def find(self, pattern: str) -> KvEntry | None:
        """The latest written of the keys that match `pattern` (`*` a token, `>` the rest)."""
        message = await self._stream.last_message(self._prefix + pattern)
        entry = None if message is None else self._entry(message)
        return None if entry is None or entry.value is None else entry

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Store a key that must not exist, and return its revision.

        Raises:
            WrongLastSequence: it exists.
        """
        try:
            return await self.update(key, value, 0, ttl_s=ttl_s)
        except WrongLastSequence:
            entry = await self.read(key)
            if entry.value is not None:
                raise
            return await self.update(key, value, entry.revision, ttl_s=ttl_s)

    async def update(
        self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None
    ) -> int:
        """Replace exactly `revision` (0: nothing is stored) and return the new revision.

        With `ttl_s` (whole seconds, at least 1) the key is gone that long after this write.

        Raises:
            WrongLastSequence: the key has another revision; nothing is stored.
            NatsUnavailable: no answer; with `sent` it may be stored.
        """
        return await self._stream.publish(
            self._prefix + key, value, expected_last_subject_seq=revision, headers=_ttl(ttl_s)
        )

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Store a key whatever was there, and return its revision."""
        return await self._stream.publish(self._prefix + key, value, headers=_ttl(ttl_s))

    async def delete(self, key: str, revision: int | None = None, *, marker_ttl_s: int = 60) -> int:
        """Remove a key (exactly `revision`, if given) and return the marker's revision.

        The marker keeps a slow compare-and-set from bringing the key back; it goes by itself.

        Raises:
            WrongLastSequence: the key has another revision; nothing is removed.
        """
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub", **_ttl(marker_ttl_s)}
        return await self._stream.publish(
            self._prefix + key, b"", expected_last_subject_seq=revision, headers=headers
        )

    async def contents(self) -> StreamContents:
        """Which bucket there is, and how much is in it, but for what anybody has only tried to store.

        Raises:
            StreamMissing: there is none.
        """
        return await self._stream.contents(but_for=self._prefix + _TRY)

    async def try_to_store(self) -> None:
        """Store something that nobody reads, since it counts as removed, and that goes by itself.

        Raises:
            NatsUnavailable: no answer, or there is no room.
        """
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub", "Nats-TTL": _TRY_KEPT}
        await self._stream.publish(self._prefix + _TRY, bytes(_TRY_BYTES), headers=headers)

    async def keys(self, pattern: str = ">") -> list[str]:
        """The keys that match, those lately removed included."""
        return [
            each[len(self._prefix) :]
            for each in await self._stream.subjects(self._prefix + pattern)
        ]

    async def list(self, pattern: str = ">") -> list[KvEntry]:
        """The entries that match, the longest unchanged first.

        May be answered by a replica that does not have the latest writes yet.
        """
        return [entry async for entry in self.scan(pattern)]

    async def scan(self, pattern: str = ">") -> AsyncIterator[KvEntry]:
        """As `list`, a page at a time; with more than 1,024 keys they come in no order."""
        try:
            async for entry in self._last_of([self._prefix + pattern]):
                yield entry
        except TooManySubjects:
            subjects = await self._stream.subjects(self._prefix + pattern)
            for start in range(0, len(subjects), _LIST_MAX_SUBJECTS):
                async for entry in self._last_of(subjects[start : start + _LIST_MAX_SUBJECTS]):
                    yield entry

    async def _last_of(self, subjects: Sequence[str]) -> AsyncIterator[KvEntry]:
        from_seq, left = 1, 1
        while left:
            messages, left = await self._stream.read_last(
                subjects, from_seq=from_seq, batch=_LIST_PAGE
            )
            for message in messages:
                entry = self._entry(message)
                if entry.value is not None:
                    yield entry
            if not messages:
                return
            from_seq = messages[-1].seq + 1

    def _entry(self, message: StoredMessage) -> KvEntry:
        removed = _OPERATION in message.headers
        return KvEntry(
            message.subject[len(self._prefix) :], None if removed else message.data, message.seq
        )


def _ttl(ttl_s: int | None) -> Mapping[str, str]:
    return {} if ttl_s is None else {"Nats-TTL": str(max(1, ttl_s))}
