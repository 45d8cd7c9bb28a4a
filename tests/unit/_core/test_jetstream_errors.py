"""What the errors of the JetStream API are raised as."""

from __future__ import annotations

import pytest

from factorychain._core.jetstream_errors import raise_error, refusal
from factorychain._core.stored import (
    NatsUnavailable,
    StorageFull,
    StorageRefused,
    StreamMissing,
)


@pytest.mark.parametrize(
    ("code", "err_code", "description"),
    [
        (503, 10077, "maximum bytes exceeded"),
        (503, 10023, "insufficient resources"),
        (500, 10047, "insufficient storage resources available"),
        (400, 10002, "resource limits exceeded for account"),
    ],
)
def test_no_room_passes_when_there_is_some_again(
    code: int, err_code: int, description: str
) -> None:
    error = refusal("KV_users", {"code": code, "err_code": err_code, "description": description})
    assert isinstance(error, StorageFull)
    assert (error.sent, error.reason, error.layer) == (False, "CHAIN_DEGRADED", "nats")
    assert "no room" in error.message
    assert error.retry_after_s
    assert "KV_users" in error.what


def test_what_else_is_not_stored_now_is_no_lack_of_room() -> None:
    error = refusal("s", {"code": 503, "err_code": 10077, "description": "store is closed"})
    assert isinstance(error, NatsUnavailable)
    assert not isinstance(error, StorageFull)


def test_a_stream_that_is_not_there_is_named() -> None:
    with pytest.raises(StreamMissing, match="nats") as raised:
        raise_error("KV_users", {"error": {"code": 404, "err_code": 10059}})
    assert raised.value.stream == "KV_users"


@pytest.mark.parametrize("err_code", [10074, 10036])
def test_what_no_waiting_mends_is_refused(err_code: int) -> None:
    assert isinstance(refusal("s", {"code": 500, "err_code": err_code}), StorageRefused)
