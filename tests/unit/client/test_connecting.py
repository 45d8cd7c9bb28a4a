"""When to connect again, and which close ends it."""

from __future__ import annotations

import pytest

from factorychain.client.connecting import Backoff, fatal
from factorychain.errors import Capacity, FactoryChainError, TokenExpired, TokenInvalid


def test_waits_double_with_jitter_up_to_a_ceiling() -> None:
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.next_s(0, None) for _ in range(10)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 10
    assert Backoff(lambda: 0.0).next_s(0, None) == 0.05


def test_only_healthy_time_starts_over() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next_s(1.0, None)
    assert backoff.next_s(1.0, None) > 1
    assert backoff.next_s(11.0, None) == 0.1


def test_what_the_server_asks_for_is_done() -> None:
    assert Backoff(lambda: 1.0).next_s(0, 1234) == 1.234


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (4001, "TOKEN_EXPIRED: x", TokenExpired),
        (4001, "TOKEN_INVALID: x", TokenInvalid),
        (4009, "16 sockets", Capacity),
        (4010, "too big", FactoryChainError),
        (1002, "", FactoryChainError),
        (1007, "", FactoryChainError),
    ],
)
def test_closes_after_which_connecting_again_is_of_no_use(
    code: int, reason: str, kind: type[FactoryChainError]
) -> None:
    assert type(fatal(code, reason)) is kind


@pytest.mark.parametrize(
    ("reason", "message"),
    [("TOKEN_INVALID: not: this one", "not: this one"), ("", "the token is not valid here")],
)
def test_a_bad_tokens_error_has_its_name_once(reason: str, message: str) -> None:
    error = fatal(4001, reason)
    assert error is not None
    assert error.message == message


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 4002, 4008])
def test_closes_after_which_the_client_comes_back(code: int) -> None:
    assert fatal(code, "") is None
