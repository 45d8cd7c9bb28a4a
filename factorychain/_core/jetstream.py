"""JetStream by its raw API: one request a read, one request a compare-and-set.

Invariant: `publish` with an expected sequence stores at most once and never carries a message id (the
same retry after a lost acknowledgement answers "wrong last sequence" on one node and "duplicate" on
three): whoever gets no answer reads forward and compares. And a sequence of a stream that was
deleted is none of the one that is made in its place: what is remembered of the old one matches
nothing there, and what is stored there comes after it.

Reads that a write depends on ask the leader (`last_message`, `next_message`). `read_range` may be
answered by a replica that is behind; `log_reader` closes that gap. Where every stream has one
replica, that one is the leader, and a direct get, which costs a third less, is as good.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from factorychain._core.jetstream_errors import (
    NO_MESSAGE,
    STREAM_EXISTS,
    STREAM_NOT_FOUND,
    WRONG_LAST,
    error_code,
    raise_error,
    refusal,
    trailing_int,
)
from factorychain._core.nats_client import Reply
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.stored import (
    NatsUnavailable,
    StorageRefused,
    StoredMessage,
    StreamContents,
    WrongLastSequence,
)
from factorychain._core.stream_config import StreamConfig, check_metadata, differs

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
BATCH_MAX_BYTES = 1024 * 1024

_READY_WITHIN_S = 30.0
_READY_LOOK_S = 0.25

_INTERNAL_HEADERS = (
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
)


class JetStream:
    """The JetStream API over one connection."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 0) -> None:
        """`replicas`: how many every stream is configured to have; 0 if that is not known."""
        self._connection = connection
        self._replicas = replicas

    @property
    def connection(self) -> NatsConnection:
        return self._connection

    def stream(self, name: str) -> Stream:
        return Stream(self._connection, name, alone=self._replicas == 1)

    async def ensure_stream(self, config: StreamConfig) -> Stream:
        """Create the stream, or bring an existing one to `config`.

        A cluster that has just lost a server chooses a leader for some seconds, in which nobody answers.

        Raises:
            StorageRefused: the server refused, or the existing stream has other `metadata`.
            NatsUnavailable: no answer within a start's patience.
        """
        until_s = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                return await self._ensured(config)
            except NatsUnavailable:
                if time.monotonic() >= until_s:
                    raise
                await asyncio.sleep(_READY_LOOK_S)

    async def _ensured(self, config: StreamConfig) -> Stream:
        body = config.to_json()
        answer = await _api(self._connection, f"STREAM.INFO.{config.name}", {})
        if error_code(answer) == STREAM_NOT_FOUND:
            new = {**body, "first_seq": _first_seq()}
            answer = await _api(self._connection, f"STREAM.CREATE.{config.name}", new)
            if error_code(answer) == STREAM_EXISTS:  # another replica was faster
                return await self._ensured(config)
            raise_error(config.name, answer)
            return self.stream(config.name)
        raise_error(config.name, answer)
        check_metadata(config, answer["config"])
        if differs(body, answer["config"]):
            raise_error(
                config.name, await _api(self._connection, f"STREAM.UPDATE.{config.name}", body)
            )
        return self.stream(config.name)


class Stream:
    """One stream."""

    def __init__(self, connection: NatsConnection, name: str, *, alone: bool = False) -> None:
        """`alone`: there is one replica, so whoever answers a direct get is the leader."""
        self._alone = alone
        self._requests = connection.requests
        self._connection = connection
        self.name = name
        self._get = f"$JS.API.STREAM.MSG.GET.{name}"
        self._direct = f"$JS.API.DIRECT.GET.{name}"

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        expected_last_subject_seq: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a message and return its stream sequence.

        Raises:
            WrongLastSequence: the subject's last message is another; nothing is stored.
            NatsUnavailable: no answer; with `sent` it may be stored all the same.
            StorageRefused: the server will never take this.
        """
        sent = dict(headers) if headers else {}
        if expected_last_subject_seq is not None:
            sent[EXPECTED_LAST] = str(expected_last_subject_seq)
        reply = await self._requests.one(subject, payload, sent)
        answer = orjson.loads(reply.data)
        error = answer.get("error")
        if error is None:
            return int(answer["seq"])
        if error.get("err_code") in WRONG_LAST and expected_last_subject_seq is not None:
            raise WrongLastSequence(
                subject, expected_last_subject_seq, trailing_int(error["description"])
            )
        raise refusal(self.name, error)

    async def last_message(self, subject: str) -> StoredMessage | None:
        """The last message of a subject (wildcards allowed), as the leader knows it."""
        return await self._leader_get({"last_by_subj": subject})

    async def next_message(self, subject: str, from_seq: int) -> StoredMessage | None:
        """The first message of a subject at or after `from_seq`, as the leader knows it."""
        return await self._leader_get({"seq": max(from_seq, 1), "next_by_subj": subject})

    async def read_range(
        self, subject: str, from_seq: int, *, batch: int = 256, max_bytes: int = BATCH_MAX_BYTES
    ) -> tuple[list[StoredMessage], bool]:
        """The messages of a subject from `from_seq` on, in order, and whether there are more.

        May be answered by a replica that does not have the latest yet.
        """
        body = {
            "seq": max(from_seq, 1),
            "next_by_subj": subject,
            "batch": batch,
            "max_bytes": max_bytes,
        }
        replies, pending = await self._direct_get(body)
        return [_stored(each, _previous(each)) for each in replies], pending > 0

    async def read_last(
        self, subjects: Sequence[str], *, from_seq: int = 1, batch: int = 1024, up_to_seq: int = 0
    ) -> tuple[list[StoredMessage], int]:
        """The last message of each subject that matches, by stream sequence, and how many are left.

        The server refuses more than 1,024 subjects in all: `TooManySubjects`.
        """
        body: dict[str, Any] = {
            "multi_last": list(subjects),
            "seq": max(from_seq, 1),
            "batch": batch,
        }
        if up_to_seq:
            body["up_to_seq"] = up_to_seq
        replies, pending = await self._direct_get(body)
        return [_stored(each) for each in replies], pending

    async def subjects(self, pattern: str) -> list[str]:
        """The subjects that have messages, as the leader knows them."""
        found: list[str] = []
        while True:
            info = await self._info({"subjects_filter": pattern, "offset": len(found)})
            page = info["state"].get("subjects") or {}
            found.extend(page)
            if not page or len(found) >= info.get("total", 0):
                return found

    async def last_seq(self) -> int:
        """The stream's last sequence."""
        return int((await self._info({}))["state"]["last_seq"])

    async def contents(self, *, but_for: str = "") -> StreamContents:
        """Which stream it is, and how much is in it, as the leader knows it; its messages without those
        of the subject `but_for`.

        Raises:
            StreamMissing: there is none of this name.
        """
        info = await self._info({"subjects_filter": but_for} if but_for else {})
        state = info["state"]
        uncounted = (state.get("subjects") or {}).get(but_for, 0)
        last_at_s = datetime.fromisoformat(state["last_ts"]).timestamp()
        return StreamContents(
            info["created"],
            int(state["messages"]) - int(uncounted),
            last_at_s,
            first_seq=int(state["first_seq"]),
            last_seq=int(state["last_seq"]),
            size_bytes=int(state["bytes"]),
            max_age_s=int(info["config"]["max_age"]) / 1e9,
        )

    async def _info(self, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await _api(self._connection, f"STREAM.INFO.{self.name}", body)
        raise_error(self.name, answer)
        return answer

    async def _leader_get(self, body: Mapping[str, Any]) -> StoredMessage | None:
        if self._alone:
            return await self._direct_get_one(body)
        reply = await self._requests.one(self._get, orjson.dumps(body))
        answer = orjson.loads(reply.data)
        if error_code(answer) == NO_MESSAGE:
            return None
        raise_error(self.name, answer)
        message = answer["message"]
        return StoredMessage(
            subject=message["subject"],
            seq=message["seq"],
            data=b64decode(message.get("data", b"")),
            headers=_parse_headers(b64decode(message["hdrs"])) if "hdrs" in message else {},
        )

    async def _direct_get_one(self, body: Mapping[str, Any]) -> StoredMessage | None:
        reply = await self._requests.one(self._direct, orjson.dumps(body))
        if not _is_status(reply):
            return _stored(reply)
        headers = reply.headers or {}
        code = headers.get("Status")
        if code == "404":
            return None
        raise StorageRefused(self.name, int(code or 0), headers.get("Description", "unknown"))

    async def _direct_get(self, body: Mapping[str, Any]) -> tuple[list[Reply], int]:
        replies = await self._requests.many(self._direct, orjson.dumps(body), _is_status)
        status = replies.pop()
        headers = status.headers or {}
        code = headers.get("Status")
        if code == "204":
            return replies, int(headers.get("Nats-Num-Pending", 0))
        if code == "404":
            return [], 0
        if code == "413":
            raise TooManySubjects(self.name)
        raise StorageRefused(self.name, int(code or 0), headers.get("Description", "unknown"))


def _first_seq() -> int:
    """Where a new stream begins to count: behind whatever one of its name that was deleted has reached."""
    return time.time_ns() // 1000


class TooManySubjects(Exception):
    """More subjects match than one request may name."""


async def _api(connection: NatsConnection, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
    reply = await connection.requests.one(f"$JS.API.{call}", orjson.dumps(body) if body else b"")
    answer: dict[str, Any] = orjson.loads(reply.data)
    return answer


def _is_status(msg: Reply) -> bool:
    return not msg.data and msg.headers is not None and "Status" in msg.headers


def _stored(msg: Reply, previous_seq: int = 0) -> StoredMessage:
    headers = dict(msg.headers or {})
    subject, seq = headers["Nats-Subject"], int(headers["Nats-Sequence"])
    for name in _INTERNAL_HEADERS:
        headers.pop(name, None)
    return StoredMessage(subject, seq, msg.data, headers, previous_seq)


def _previous(msg: Reply) -> int:
    # The one that the server sent before it in this answer, 0 for the first.
    return int((msg.headers or {}).get("Nats-Last-Sequence", 0))


def _parse_headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").split("\r\n")[1:]
    return {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines)
        if colon
    }
