"""Page tokens: where a listing goes on.

Invariant: a token is good only for the principal and the listing that it was made for. It holds no
secret and opens nothing: listings read the caller's own records whatever the token says.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b

from factorychain._core.ids import Principal
from factorychain.errors import InvalidField

_TAG_BYTES = 12
MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """The last item of a page: its time in nanoseconds, and its id to tell equal times apart."""

    at_ns: int
    id: str


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
