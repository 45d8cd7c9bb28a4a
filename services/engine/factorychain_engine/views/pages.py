"""Pages of a listing: what fits into one, and the token where the next begins.

Invariants: a page fits into one gRPC message however big its items are; a token is good only for the
principal and the listing that it was made for. A token holds no secret and opens nothing: listings
read the caller's own records whatever it says.
"""

from __future__ import annotations

import heapq
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from factorychain._core.ids import Principal
from factorychain.errors import InvalidField

MAX_PAGE_SIZE: Final = 1000
PAGE_MAX_BYTES: Final = 3 * 1024 * 1024
_TAG_BYTES: Final = 12


class Sized(Protocol):
    """A protobuf message."""

    def ByteSize(self) -> int: ...  # noqa: N802 - protobuf's name


T = TypeVar("T", bound=Sized)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """The last item of a page: its time in nanoseconds, and its id to tell equal times apart."""

    at_ns: int
    id: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page; `last` is the cursor of its last item if there are more."""

    items: list[T]
    last: Cursor | None

    def next_token(self, principal: Principal, listing: str) -> str:
        """The token of the page after this; empty if this is the last."""
        return "" if self.last is None else token_of(principal, listing, self.last)


class Newest(Generic[T]):
    """Picks the newest items out of a scan, and holds no more of them than the page will show."""

    def __init__(self, size: int, before: Cursor | None) -> None:
        """`before`: only what is older than this."""
        self._size = size
        self._before = before
        self._heap: list[tuple[Cursor, int, T]] = []
        self._count = 0

    def offer(self, cursor: Cursor, item: T) -> None:
        if self._before is not None and cursor >= self._before:
            return
        self._count += 1
        entry = (cursor, self._count, item)
        if len(self._heap) <= self._size:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def page(self) -> Page[T]:
        """The newest first."""
        ordered = sorted(self._heap, reverse=True)
        return page_of([(cursor, item) for cursor, _, item in ordered], self._size)


def page_of(items: Iterable[tuple[Cursor, T]], size: int) -> Page[T]:
    """The first items that fit, at least one."""
    shown: list[T] = []
    last: Cursor | None = None
    size_bytes = 0
    for cursor, item in items:
        size_bytes += item.ByteSize()
        if shown and (len(shown) == size or size_bytes > PAGE_MAX_BYTES):
            return Page(shown, last)
        shown.append(item)
        last = cursor
    return Page(shown, None)


def latest_that_fit(items: list[T], size: int) -> list[T]:
    """The last items that fit into one message, in their order."""
    picked: list[T] = []
    size_bytes = 0
    for item in islice(reversed(items), size):
        size_bytes += item.ByteSize()
        if picked and size_bytes > PAGE_MAX_BYTES:
            break
        picked.append(item)
    return picked[::-1]


def page_size(asked: int, default: int) -> int:
    """How many items a page has.

    Raises:
        InvalidField: more than a page may have.
    """
    if asked > MAX_PAGE_SIZE:
        raise InvalidField("page_size", f"must be at most {MAX_PAGE_SIZE}")
    return asked or default


def token_of(principal: Principal, listing: str, cursor: Cursor) -> str:
    """The token of the page after `cursor`."""
    body = f"{cursor.at_ns}:{cursor.id}".encode()
    return urlsafe_b64encode(_tag(principal, listing, body) + body).decode("ascii")


def cursor_of(principal: Principal, listing: str, token: str) -> Cursor | None:
    """Where the page after `token` begins; None for the first page.

    Raises:
        InvalidField: the token is of another listing or principal, or was never made here.
    """
    if not token:
        return None
    try:
        raw = urlsafe_b64decode(token.encode("ascii"))
        tag, body = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        at_ns, _, item = body.decode().partition(":")
        cursor = Cursor(int(at_ns), item)
    except ValueError:
        raise _bad_token() from None
    if tag != _tag(principal, listing, body):
        raise _bad_token()
    return cursor


def _tag(principal: Principal, listing: str, body: bytes) -> bytes:
    hashed = blake2b(digest_size=_TAG_BYTES, person=b"fc-page", key=principal.ukey.encode())
    hashed.update(listing.encode() + b"\0" + body)
    return hashed.digest()


def _bad_token() -> InvalidField:
    return InvalidField(
        "page_token",
        "is not one of this listing's; leave it empty to begin again at the first page",
    )
