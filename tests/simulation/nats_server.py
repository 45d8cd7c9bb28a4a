"""What the services use of a NATS server with JetStream, without I/O: requests in, replies out.

It passes the contract tests that the real server passes (tests/integration/nats_contract).

Invariants: a message is stored at most once and only if the expected last sequence of its subject
holds; sequences of a stream are dense; what is stored is republished once, with its sequence and
that of the message before it on its subject.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from itertools import takewhile
from typing import Any, Final, NamedTuple

import orjson

Headers = Mapping[str, str]

_NO_STREAM: Final = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
_NO_MESSAGE: Final = {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}
_MOST_SUBJECTS: Final = 1024


class Answer(NamedTuple):
    """A message that the server sends: a reply, or one that it republishes."""

    data: bytes
    headers: Headers | None = None
    subject: str = ""


@dataclass(slots=True)
class Stored:
    """A message of a stream."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    gone_at_s: float


@dataclass(slots=True)
class FakeStream:
    """One stream; a bucket is one, too."""

    config: dict[str, Any]
    last_seq: int = 0
    messages: dict[int, Stored] = field(default_factory=dict)
    history: list[tuple[float, Stored]] = field(default_factory=list)
    """Everything that was ever stored, and when: what servers that are behind still have."""
    by_subject: dict[str, list[int]] = field(default_factory=dict)
    next_gone_at_s: float = float("inf")
    """Nothing of it expires before."""

    def last_of(self, subject: str) -> int:
        seqs = self.by_subject.get(subject)
        return seqs[-1] if seqs else 0

    def matching(self, pattern: str, from_seq: int = 1) -> list[Stored]:
        if is_wild(pattern):
            found = sorted(seq for each in self.subjects(pattern) for seq in self.by_subject[each])
        else:
            found = self.by_subject.get(pattern, [])
        return [self.messages[seq] for seq in found if seq >= from_seq]

    def subjects(self, pattern: str) -> list[str]:
        concerns = matcher(pattern)
        return [each for each in self.by_subject if concerns(each)]

    def last(self, pattern: str) -> Stored | None:
        subjects = self.subjects(pattern) if is_wild(pattern) else [pattern]
        seq = max(map(self.last_of, subjects), default=0)
        return self.messages[seq] if seq else None

    def add(self, subject: str, data: bytes, headers: dict[str, str], gone_at_s: float) -> Stored:
        self.last_seq += 1
        stored = Stored(self.last_seq, subject, data, headers, gone_at_s)
        self.messages[stored.seq] = stored
        self.next_gone_at_s = min(self.next_gone_at_s, gone_at_s)
        seqs = self.by_subject.setdefault(subject, [])
        seqs.append(stored.seq)
        if self.config["max_msgs_per_subject"] == 1 or headers.get("Nats-Rollup") == "sub":
            for seq in seqs[:-1]:
                del self.messages[seq]
            del seqs[:-1]
        return stored

    def as_of(self, now_s: float) -> FakeStream:
        """The stream as it was."""
        past = FakeStream(self.config)
        for _, each in takewhile(lambda entry: entry[0] <= now_s, self.history):
            _ = past.add(each.subject, each.data, each.headers, each.gone_at_s)
        past.expire(now_s)
        return past

    def expire(self, now_s: float) -> None:
        if now_s < self.next_gone_at_s:
            return
        for stored in [each for each in self.messages.values() if each.gone_at_s <= now_s]:
            del self.messages[stored.seq]
            self.by_subject[stored.subject].remove(stored.seq)
            if not self.by_subject[stored.subject]:
                del self.by_subject[stored.subject]
        left = (each.gone_at_s for each in self.messages.values())
        self.next_gone_at_s = min(left, default=float("inf"))


class FakeNats:
    """The server's memory, which a restart keeps, as JetStream's files do."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.streams: dict[str, FakeStream] = {}
        self._clock = clock
        self._next_gone_at_s = float("inf")
        """Nothing of any stream expires before."""
        self._routes: dict[str, str] = {}
        """Which stream keeps a subject."""

    def handle(
        self, subject: str, data: bytes, headers: Headers, behind_s: float = 0.0
    ) -> tuple[list[Answer], Answer | None]:
        """The replies to a request, and what it makes the server republish.

        `behind_s`: how old the state is from which direct gets of replicated streams are answered.
        """
        now_s = self._clock()
        if now_s >= self._next_gone_at_s:
            self._expire(now_s)
        if subject.startswith("$JS.API."):
            call = subject.removeprefix("$JS.API.")
            return self._api(call, orjson.loads(data) if data else {}, behind_s), None
        return self._publish(subject, data, headers)

    def _expire(self, now_s: float) -> None:
        for stream in self.streams.values():
            stream.expire(now_s)
        self._next_gone_at_s = min(each.next_gone_at_s for each in self.streams.values())

    # --- writing ----------------------------------------------------------------------------

    def _publish(
        self, subject: str, data: bytes, headers: Headers
    ) -> tuple[list[Answer], Answer | None]:
        found = self._stream_of(subject)
        if found is None:
            return [Answer(b"", {"Status": "503"})], None
        name, stream = found
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        last = stream.last_of(subject)
        if expected is not None and int(expected) != last:
            text = f"wrong last sequence: {last}"
            return [_json({"error": {"code": 400, "err_code": 10071, "description": text}})], None
        ttl = headers.get("Nats-TTL")
        gone_at_s = self._clock() + float(ttl.removesuffix("s")) if ttl else float("inf")
        self._next_gone_at_s = min(self._next_gone_at_s, gone_at_s)
        kept = {name: value for name, value in headers.items() if not name.startswith("Nats-Exp")}
        stored = stream.add(subject, data, kept, gone_at_s)
        stream.history.append((self._clock(), stored))
        return [_json({"stream": name, "seq": stored.seq})], _republished(
            stream, name, stored, last
        )

    def _stream_of(self, subject: str) -> tuple[str, FakeStream] | None:
        name = self._routes.get(subject)
        if name is not None:
            return name, self.streams[name]
        for name, stream in self.streams.items():
            for pattern in stream.config["subjects"]:
                if matcher(pattern)(subject):
                    self._routes[subject] = name
                    return name, stream
        return None

    # --- the API ----------------------------------------------------------------------------

    def _api(self, call: str, body: dict[str, Any], behind_s: float) -> list[Answer]:
        verb, _, name = call.rpartition(".")
        stream = self.streams.get(name)
        if verb == "STREAM.CREATE":
            if stream is not None:
                exists = {"code": 400, "err_code": 10058, "description": "stream name in use"}
                return [_json({"error": exists})]
            self.streams[name] = FakeStream(body)
            return [_json({"config": body})]
        if stream is None:
            direct = verb == "DIRECT.GET"
            return [Answer(b"", {"Status": "503"}) if direct else _json(_NO_STREAM)]
        if verb == "STREAM.UPDATE":
            stream.config = body
            return [_json({"config": body})]
        if verb == "STREAM.INFO":
            return [_json(_info(stream, body))]
        if verb == "STREAM.MSG.GET":
            return [_json(_leader_get(stream, body))]
        assert verb == "DIRECT.GET", f"the services use {call}, which this server does not know"
        if behind_s and stream.config["num_replicas"] > 1:
            stream = stream.as_of(self._clock() - behind_s)
        return _direct_get(stream, name, body)


def is_wild(pattern: str) -> bool:
    """Whether it may have more subjects than itself: `*` stands for a token, `>` for the rest."""
    return "*" in pattern or pattern.endswith(">")


@cache
def matcher(pattern: str) -> Callable[[str], object]:
    """Says of a subject whether it is one of the pattern."""
    if not is_wild(pattern):
        return pattern.__eq__
    # Nearly all there are, and a user's own in each simulation: compiling them would take longer.
    start, wild, end = pattern.partition("*" if "*" in pattern else ">")
    if wild == ">" and not end:
        return lambda subject: subject.startswith(start) and subject != start
    if wild == "*" and "*" not in end and ">" not in end:
        return partial(_one_token_between, start, end)
    forms = {"*": r"[^.]+", ">": r".+"}
    parts = (forms.get(each, re.escape(each)) for each in pattern.split("."))
    return re.compile(r"\.".join(parts)).fullmatch


def _one_token_between(start: str, end: str, subject: str) -> bool:
    if not (subject.startswith(start) and subject.endswith(end)):
        return False
    token = subject[len(start) : len(subject) - len(end)]
    return bool(token) and "." not in token


def _json(body: object) -> Answer:
    return Answer(orjson.dumps(body))


def _republished(stream: FakeStream, name: str, stored: Stored, previous: int) -> Answer | None:
    route = stream.config.get("republish")
    if not route:
        return None
    prefix, onto = route["src"].removesuffix(">"), route["dest"].removesuffix(">")
    headers = {**_as_sent(name, stored), "Nats-Last-Sequence": str(previous)}
    return Answer(stored.data, headers, onto + stored.subject.removeprefix(prefix))


def _as_sent(name: str, stored: Stored) -> dict[str, str]:
    return {
        **stored.headers,
        "Nats-Stream": name,
        "Nats-Subject": stored.subject,
        "Nats-Sequence": str(stored.seq),
    }


def _info(stream: FakeStream, body: dict[str, Any]) -> dict[str, Any]:
    pattern = body.get("subjects_filter")
    found = [] if pattern is None else stream.subjects(pattern)
    page = found[body.get("offset", 0) :]
    subjects = {each: len(stream.by_subject[each]) for each in page}
    stored_at_s = stream.history[-1][0] if stream.history else 0.0
    state = {
        "messages": len(stream.messages),
        "bytes": sum(len(each.data) for each in stream.messages.values()),
        "first_seq": next(iter(stream.messages), stream.last_seq + 1),
        "last_seq": stream.last_seq,
        "last_ts": datetime.fromtimestamp(stored_at_s, UTC).isoformat(),
        "subjects": subjects,
    }
    created = "at the beginning"  # nobody deletes a stream here
    return {"config": stream.config, "created": created, "state": state, "total": len(found)}


def _one(stream: FakeStream, body: dict[str, Any]) -> Stored | None:
    if "last_by_subj" in body:
        return stream.last(body["last_by_subj"])
    return next(iter(stream.matching(body["next_by_subj"], body["seq"])), None)


def _leader_get(stream: FakeStream, body: dict[str, Any]) -> dict[str, Any]:
    stored = _one(stream, body)
    if stored is None:
        return _NO_MESSAGE
    message: dict[str, Any] = {"subject": stored.subject, "seq": stored.seq}
    message["data"] = b64encode(stored.data).decode()
    if stored.headers:
        lines = "".join(f"{name}: {value}\r\n" for name, value in stored.headers.items())
        message["hdrs"] = b64encode(f"NATS/1.0\r\n{lines}\r\n".encode()).decode()
    return {"message": message}


def _direct_get(stream: FakeStream, name: str, body: dict[str, Any]) -> list[Answer]:
    if "batch" not in body:
        stored = _one(stream, body)
        return [_NOT_FOUND if stored is None else Answer(stored.data, _as_sent(name, stored))]
    if "multi_last" in body:
        found = _last_of_each(stream, body["multi_last"], body["seq"])
        if found is None:
            return [Answer(b"", {"Status": "413", "Description": "Too Many Results"})]
    else:
        found = stream.matching(body["next_by_subj"], body["seq"])
    return _batch(found, name, body) if found else [_NOT_FOUND]


_NOT_FOUND: Final = Answer(b"", {"Status": "404", "Description": "Message Not Found"})


def _last_of_each(stream: FakeStream, patterns: list[str], from_seq: int) -> list[Stored] | None:
    subjects = {subject for each in patterns for subject in stream.subjects(each)}
    if len(subjects) > _MOST_SUBJECTS:
        return None
    seqs = sorted(stream.by_subject[each][-1] for each in subjects)
    return [stream.messages[seq] for seq in seqs if seq >= from_seq]


def _batch(found: list[Stored], name: str, body: dict[str, Any]) -> list[Answer]:
    answers: list[Answer] = []
    room, previous = body.get("max_bytes", 1 << 30), 0
    for stored in found[: body["batch"]]:
        if room < len(stored.data) and answers:
            break
        room -= len(stored.data)
        headers = {**_as_sent(name, stored), "Nats-Last-Sequence": str(previous)}
        answers.append(Answer(stored.data, headers))
        previous = stored.seq
    left = str(len(found) - len(answers))
    status = {"Status": "204", "Description": "EOB", "Nats-Num-Pending": left}
    return [*answers, Answer(b"", status)]
