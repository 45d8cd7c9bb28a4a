"""The one mapping between errors and google.rpc.Status."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from factorychain._core import status
from factorychain.errors import (
    ChainDegraded,
    FactoryChainError,
    InternalFault,
    NotImplementedYet,
    RunNotFound,
    TokenInvalid,
    UserEngineLimit,
)
from tests.error_samples import SAMPLES


def rpc_error(
    code: grpc.StatusCode, details: bytes | None = None, text: str = "peer text"
) -> grpc.aio.AioRpcError:
    pairs = [] if details is None else [(status.DETAILS_KEY, details)]
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*pairs), details=text)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda each: each.reason)
def test_every_error_comes_back_as_it_was_raised(error: FactoryChainError) -> None:
    wire = status.to_status(error).SerializeToString()
    back = status.from_rpc_error(rpc_error(getattr(grpc.StatusCode, error.code.value), wire))
    assert back.code is error.code
    assert back.reason == error.reason
    assert back.message == error.message
    assert back.retry_after_s == error.retry_after_s
    assert back.field_violations == error.field_violations
    assert back.quota == error.quota
    assert back.precondition == error.precondition
    assert back.names == error.names
    assert back.metadata == error.metadata
    assert type(back) is type(error)


def test_a_limit_carries_quota_failure_and_retry_info() -> None:
    found = status.to_status(UserEngineLimit(2, retry_after_s=3.5))
    kinds = {each.type_url.rsplit(".", 1)[1] for each in found.details}
    assert kinds == {"ErrorInfo", "QuotaFailure", "RetryInfo"}
    retry = error_details_pb2.RetryInfo()
    assert any(each.Unpack(retry) for each in found.details if each.Is(retry.DESCRIPTOR))
    assert retry.retry_delay.ToMilliseconds() == 3500


def test_an_unknown_exception_leaves_with_an_incident_and_without_its_text() -> None:
    with capture_logs() as lines:
        error = status.as_error(ValueError("canary of another user"), where="a/B")
    assert isinstance(error, InternalFault)
    assert b"canary" not in status.to_status(error).SerializeToString()
    assert [line["incident"] for line in lines] == [error.incident]


def test_an_error_raised_in_a_task_group_is_still_itself() -> None:
    grouped = ExceptionGroup("tasks", [ExceptionGroup("inner", [RunNotFound()])])
    assert isinstance(status.as_error(grouped, where="a/B"), RunNotFound)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, ChainDegraded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ChainDegraded),
        (grpc.StatusCode.CANCELLED, ChainDegraded),
        (grpc.StatusCode.UNIMPLEMENTED, NotImplementedYet),
        (grpc.StatusCode.UNAUTHENTICATED, TokenInvalid),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, FactoryChainError),
    ],
)
def test_what_grpc_itself_answers_is_an_error_that_names_the_layer(
    code: grpc.StatusCode, expected: type[FactoryChainError]
) -> None:
    error = status.from_rpc_error(rpc_error(code), "emitter")
    assert type(error) is expected
    assert "peer text" not in error.message
    if isinstance(error, ChainDegraded):
        assert error.layer == "emitter"


@pytest.mark.parametrize("details", [b"\xff\xff garbage", b""])
def test_details_that_cannot_be_read_fall_back_to_the_code(details: bytes) -> None:
    error = status.from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, details), "bridge")
    assert isinstance(error, ChainDegraded)


def test_details_of_another_domain_are_not_taken_for_ours() -> None:
    foreign = status_pb2.Status(code=5, message="not found")
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(reason="RUN_NOT_FOUND", domain="else"))
    assert status.from_status(foreign) is None


def test_a_status_stays_small_enough_for_headers_however_long_the_message() -> None:
    error = FactoryChainError("ü" * 100_000, names=["n" * 10] * 1000)
    assert status.to_status(error).ByteSize() < 8192


def test_json_has_retry_after_only_where_there_is_one() -> None:
    limit = status.to_json(UserEngineLimit(2, retry_after_s=3))
    assert limit["code"] == "RESOURCE_EXHAUSTED"
    assert limit["reason"] == "USER_ENGINE_LIMIT"
    assert limit["retry_after_s"] == 3
    assert set(status.to_json(RunNotFound())) == {"code", "reason", "message"}
