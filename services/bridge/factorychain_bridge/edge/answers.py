"""What the server says in `factorychain.v1.json`, apart from events: one function a frame."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from factorychain.errors import FactoryChainError


def reply(id: str, result: Mapping[str, object]) -> bytes:
    """An operation has succeeded."""
    return orjson.dumps({"op": "reply", "id": id, "result": result})


def failed(id: str | None, error: Mapping[str, object]) -> bytes:
    """An operation has failed: its reply, or an `error` frame where there is no id to reply to."""
    if id is None:
        return orjson.dumps({"op": "error", "error": error})
    return orjson.dumps({"op": "reply", "id": id, "error": error})


def error(error: FactoryChainError) -> dict[str, object]:
    """An error as clients see it. What a client can act on comes along, where there is any."""
    found: dict[str, object] = {
        "code": error.code.value,
        "reason": error.reason,
        "message": error.message,
    }
    if error.retry_after_s is not None:
        found["retry_after_s"] = error.retry_after_s
    if error.field_violations:
        found["fields"] = {each.field: each.description for each in error.field_violations}
    if error.names:
        found["names"] = list(error.names)
    return found | {key: value for key, value in error.metadata.items() if key not in found}


def ready(
    id: str | None,
    *,
    tenant: str,
    user: str,
    expires_at: str,
    heartbeat_s: float,
    limits: Mapping[str, object],
) -> bytes:
    """The socket speaks for this user until `expires_at` (RFC 3339)."""
    frame: dict[str, object] = {
        "op": "ready",
        "tenant": tenant,
        "user": user,
        "expires_at": expires_at,
        "heartbeat_s": heartbeat_s,
        "limits": limits,
    }
    return orjson.dumps(frame if id is None else frame | {"id": id})


def caught_up(thread: str, seq: int) -> bytes:
    """The client has everything that there was when it subscribed."""
    return orjson.dumps({"op": "caught_up", "thread": thread, "seq": seq})


def reset(thread: str, epoch: int, reason: str) -> bytes:
    """The client's position does not hold; everything that there is follows."""
    return orjson.dumps({"op": "reset", "thread": thread, "epoch": epoch, "reason": reason})


def token_expiring(in_s: int) -> bytes:
    """The token ends soon; another `auth` keeps the socket."""
    return orjson.dumps({"op": "token_expiring", "in_s": in_s})


def closing(reason: str, reconnect_after_ms: int) -> bytes:
    """The server will close the socket with 1012; the wait differs from socket to socket."""
    return orjson.dumps(
        {"op": "closing", "reason": reason, "reconnect_after_ms": reconnect_after_ms}
    )
