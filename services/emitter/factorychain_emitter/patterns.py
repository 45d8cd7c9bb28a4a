"""What a secret looks like.

A pattern has literal prefixes, which are public and stay visible, and a body, which is not and does
not. Matching begins at a prefix and is linear: a pattern never looks at a character twice, and
after a miss the search goes on behind what it looked at. Bodies are open-ended: once long enough to
be a secret, a body stays one whatever follows, so that a text which comes in pieces is judged as if
it had come in one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Found(NamedTuple):
    """What a pattern sees at a prefix."""

    start: int
    """Where the body begins."""
    end: int
    """Where it ends; the search goes on here."""
    complete: bool
    """Whether the body is a secret as it is."""
    open: bool
    """Whether it touches the end of the text, so that more of it may come."""


class SecretPattern(Protocol):
    """One kind of secret."""

    @property
    def name(self) -> str: ...

    @property
    def prefixes(self) -> tuple[str, ...]: ...

    @property
    def surely_chars(self) -> int:
        """So much of a body is taken for a secret when something else interrupts it."""

    def at(self, text: str, start: int) -> Found:
        """What there is behind a prefix that ends at `start`."""

    def continues(self, text: str) -> bool:
        """Whether `text`, behind an open body, is certainly only more of that body."""

    def rest(self, text: str) -> int | None:
        """Where a body ends in which `text` begins; None: not in this text."""


def _run(alphabet: re.Pattern[str], text: str, start: int = 0) -> int:
    """Where a run of an alphabet ends."""
    match = alphabet.match(text, start)
    return match.end() if match else start


def _rest(alphabet: re.Pattern[str], text: str) -> int | None:
    end = _run(alphabet, text)
    return end if end < len(text) else None


@dataclass(frozen=True, slots=True)
class Token:
    """A prefix and at least so many characters of an alphabet behind it."""

    name: str
    prefixes: tuple[str, ...]
    alphabet: re.Pattern[str]
    shortest: int
    surely_chars: int = 8
    opens_at: int = 0
    """How much of a body makes a prefix at the end of a text worth waiting for."""

    def at(self, text: str, start: int) -> Found:
        end = _run(self.alphabet, text, start)
        open_ = end == len(text) and end - start >= self.opens_at
        return Found(start, end, end - start >= self.shortest, open_)

    def continues(self, text: str) -> bool:
        return _run(self.alphabet, text) == len(text)

    def rest(self, text: str) -> int | None:
        return _rest(self.alphabet, text)


def _token(name: str, shortest: int, alphabet: str, *prefixes: str, opens_at: int = 0) -> Token:
    return Token(name, prefixes, re.compile(f"[{alphabet}]*"), shortest, opens_at=opens_at)


@dataclass(frozen=True, slots=True)
class Jwt:
    """RFC 7515 compact form. A JWS whose signature is missing still shows its claims."""

    name: str = "jwt"
    surely_chars: int = 8
    prefixes: tuple[str, ...] = ("eyJ",)

    _SEGMENTS = re.compile(r"[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,4}")

    def at(self, text: str, start: int) -> Found:
        end = _run(self._SEGMENTS, text, start)
        first, *rest = text[start:end].split(".")
        signed = bool(rest) and len(first) >= 5 and len(rest[0]) >= 8
        is_jws = signed and rest[0].startswith("eyJ")
        is_jwe = signed and len(rest) >= 2 and len(rest[1]) >= 8
        open_ = end == len(text)
        while not open_ and end > start and text[end - 1] == ".":  # the end of a sentence
            end -= 1
        return Found(start, end, is_jws or is_jwe, open_)

    def continues(self, text: str) -> bool:
        # A dot may be the end: only the whole can tell.
        return "." not in text and _run(self._SEGMENTS, text) == len(text)

    def rest(self, text: str) -> int | None:
        return _rest(self._SEGMENTS, text)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """PEM and PGP. One without an end is a key that was cut off, and as secret."""

    name: str = "private_key"
    surely_chars: int = 8
    prefixes: tuple[str, ...] = ("-----BEGIN ",)

    _LABEL = re.compile(r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
    _MAYBE_LABEL = re.compile(r"[A-Z0-9 ]{0,60}-{0,5}")
    _END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")

    def at(self, text: str, start: int) -> Found:
        label = self._LABEL.match(text, start)
        if label is None:
            maybe = self._MAYBE_LABEL.match(text, start)
            open_ = maybe is not None and maybe.end() == len(text)
            return Found(start, start, False, open_)
        end = self._END.search(text, label.end())
        if end is None:
            return Found(start, len(text), True, True)
        return Found(start, end.end(), True, False)

    def continues(self, text: str) -> bool:
        return "-" not in text

    def rest(self, text: str) -> int | None:
        end = self._END.search(text)
        return end.end() if end else None


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The password in `scheme://user:password@host`. User and host stay visible."""

    name: str = "database_url"
    surely_chars: int = 1
    prefixes: tuple[str, ...] = ("://",)

    _SCHEMES = (
        *("postgres", "postgresql", "mysql", "mariadb", "mongodb", "redis", "rediss", "amqp"),
        *("amqps", "mssql", "sqlserver", "oracle", "cockroachdb", "clickhouse", "cassandra"),
        *("snowflake", "redshift", "db2", "couchdb", "neo4j", "bolt", "nats", "mongodb+srv"),
    )
    _DRIVER = re.compile(r"(?:\+[a-z0-9_]{1,20}){1,2}\Z")
    _USER = re.compile(r"[^\s:@/\"'<>\\]{0,128}")
    # With "@" in it up to the first slash, or with a slash in it up to the first "@".
    _PASSWORD = re.compile(r"[^\s\"'<>/?#\\]{1,256}(?=@)|[^\s\"'<>@\\]{1,256}(?=@)")
    _PORT = re.compile(r"[0-9]{0,5}(?:/|\Z)")
    _AUTHORITY = re.compile(r"[^\s\"'<>/?#\\]{0,600}")
    _UP_TO_AT = re.compile(r"[^\s\"'<>@\\]{0,256}")

    def at(self, text: str, start: int) -> Found:
        if not self._is_database(text[max(0, start - 60) : start - 3]):
            return Found(start, start, False, False)
        end = _run(self._USER, text, start)
        if end == len(text) or text[end] != ":":
            return Found(start, end, False, end == len(text))
        start = end + 1
        reach = max(_run(pattern, text, start) for pattern in (self._AUTHORITY, self._UP_TO_AT))
        password = self._PASSWORD.match(text, start)
        if password is None:
            # `redis://cache:6379` may still become a password, but so far it is a port.
            end = start if self._PORT.match(text, start) else reach
            return Found(start, end, False, reach == len(text))
        return Found(start, password.end(), True, reach == len(text))

    def _is_database(self, before: str) -> bool:
        scheme = before.lower()
        if "+" in scheme:
            scheme = self._DRIVER.sub("", scheme)
        return scheme.endswith(self._SCHEMES)

    def continues(self, text: str) -> bool:
        return False  # short enough to be looked at again as a whole

    def rest(self, text: str) -> int | None:
        return _rest(self._UP_TO_AT, text)


@dataclass(frozen=True, slots=True)
class AwsSecretKey:
    """Forty characters without a mark of their own, known by the name in front of them."""

    name: str = "aws"
    surely_chars: int = 8
    prefixes: tuple[str, ...] = (
        "ecret_access_key",
        "ECRET_ACCESS_KEY",
        "ecretAccessKey",
        "ecret-access-key",
    )

    # Also inside JSON that is itself a string in JSON: \"
    _LEAD = re.compile(r"\\?[\"']?\s{0,8}(?:([:=])\s{0,8}\\?[\"']?)?")
    _BODY = re.compile(r"[A-Za-z0-9/+]*")

    def at(self, text: str, start: int) -> Found:
        lead = self._LEAD.match(text, start)
        if lead is None or lead[1] is None:
            end = lead.end() if lead else start
            return Found(end, end, False, end == len(text))
        start = lead.end()
        end = _run(self._BODY, text, start)
        return Found(start, end, end - start >= 40, end == len(text))

    def continues(self, text: str) -> bool:
        return False

    def rest(self, text: str) -> int | None:
        return _rest(self._BODY, text)


@dataclass(frozen=True, slots=True)
class Exact:
    """A credential that is known: the run's own."""

    credential: str
    visible: int = 6
    name: str = "own_credential"
    surely_chars: int = 8

    _ALPHABET = re.compile(r"[A-Za-z0-9._~+/=-]*")

    @property
    def prefixes(self) -> tuple[str, ...]:
        return (self.credential[: self.visible],)

    def at(self, text: str, start: int) -> Found:
        body = self.credential[self.visible :]
        piece = text[start : start + len(body)]
        if piece == body:
            return Found(start, start + len(body), True, False)
        open_ = start + len(piece) == len(text) and body.startswith(piece)
        return Found(start, start + len(piece) if open_ else start, False, open_)

    def continues(self, text: str) -> bool:
        return False

    def rest(self, text: str) -> int | None:
        return _rest(self._ALPHABET, text)


_WORD = "A-Za-z0-9"

PATTERNS: tuple[SecretPattern, ...] = (
    _token("aws", 16, "A-Z0-9", "AKIA", "ASIA", opens_at=1),  # ASIA is also a word
    _token("github", 36, _WORD, "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token("github", 36, _WORD + "_", "github_pat_"),
    _token("slack", 10, _WORD + "-", *(f"xox{kind}-" for kind in "abceoprs"), "xapp-"),
    _token("slack", 20, _WORD + "/", "hooks.slack.com/services/"),
    _token("google", 35, _WORD + "_-", "AIza"),
    _token("google", 24, _WORD + "_-", "GOCSPX-"),
    _token("google", 20, _WORD + "_-", "ya29."),
    _token("stripe", 16, _WORD, "sk_live_", "sk_test_", "rk_live_", "rk_test_"),
    _token("stripe", 24, _WORD + "+/=", "whsec_"),
    _token("model_vendor", 20, _WORD + "_-", "sk-ant-", "sk-proj-"),
    Jwt(),
    PrivateKey(),
    DatabaseUrl(),
    AwsSecretKey(),
)

COMMON_MARKS = ("eyJ", "xox", "sk-", "ecret", "ECRET", "_")
"""What several prefixes have in common: a text without it needs no search for any of them."""
