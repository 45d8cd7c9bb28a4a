"""Checks of claims (RFC 7519 section 4.1) that both kinds of tokens share.

Invariant: a claim of the wrong type is refused like a wrong value; nothing is converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factorychain._core.ids import Principal
from factorychain.errors import TokenExpired, TokenInvalid

# Control characters, which would end up in logs and subjects of other systems.
_UNPRINTABLE = {*map(chr, range(32)), "\x7f"}
_NAME_MAX_CHARS = 256
# The end of the calendar. What lies beyond was meant in milliseconds, or as "never".
_LAST_MOMENT_S = 253_402_300_799


def text(claims: Mapping[str, Any], name: str) -> str:
    """A claim that is a text for people or machines: 1 to 256 printable characters.

    Raises:
        TokenInvalid: it is not.
    """
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_MAX_CHARS:
        raise TokenInvalid(
            f"the token's {name} must be a text of 1 to {_NAME_MAX_CHARS} characters"
        )
    if not _UNPRINTABLE.isdisjoint(value):
        raise TokenInvalid(f"the token's {name} has control characters")
    return value


def integer(claims: Mapping[str, Any], name: str) -> int:
    """A claim that is a whole number, not negative.

    Raises:
        TokenInvalid: it is not.
    """
    value = claims.get(name)
    if type(value) is not int or value < 0:
        raise TokenInvalid(f"the token's {name} must be a whole number")
    return value


def seconds(claims: Mapping[str, Any], name: str) -> float:
    """A claim that is a NumericDate.

    Raises:
        TokenInvalid: it is not.
    """
    value = claims.get(name)
    # Compared before it is converted: JSON's numbers may be larger than any float.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -_LAST_MOMENT_S <= value <= _LAST_MOMENT_S
    ):
        raise TokenInvalid(f"the token's {name} must be a time in Unix seconds")
    return float(value)


def principal(claims: Mapping[str, Any], tenant: str) -> Principal:
    """The principal whose user is `sub`.

    Raises:
        TokenInvalid: there is no usable `sub`.
    """
    return Principal(tenant, text(claims, "sub"))


def expiry(claims: Mapping[str, Any], now_s: float, leeway_s: float) -> float:
    """`exp`, after it, `nbf` and `iat` were checked.

    Raises:
        TokenExpired: `exp` is over.
        TokenInvalid: not valid yet, or without `exp`.
    """
    expires_at_s = seconds(claims, "exp")
    if expires_at_s + leeway_s <= now_s:
        raise TokenExpired
    for name in ("nbf", "iat"):
        if name in claims and seconds(claims, name) > now_s + leeway_s:
            raise TokenInvalid(f"the token is not valid yet ({name}); are the clocks right?")
    return expires_at_s


def require_audience(claims: Mapping[str, Any], audience: str) -> None:
    """Check that `aud` names us.

    Raises:
        TokenInvalid: it does not.
    """
    found = claims.get("aud")
    if found != audience and not (isinstance(found, list) and audience in found):
        raise TokenInvalid("the token is for another audience")


def scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """What `scope` (RFC 8693) or `scp` lists; text with spaces, or a list."""
    found = claims.get("scope", claims.get("scp", ""))
    if isinstance(found, str):
        return frozenset(found.split())
    return (
        frozenset(each for each in found if isinstance(each, str))
        if isinstance(found, list)
        else frozenset()
    )
