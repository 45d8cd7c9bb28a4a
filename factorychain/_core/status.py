"""The one mapping between errors and `google.rpc.Status`, both ways.

Invariant: what leaves a layer is a known error with a reason. An unknown exception leaves as
INTERNAL with an incident id that the log also has, never with its own text: that may hold someone
else's data.
"""

from __future__ import annotations

import secrets
from typing import Any, Never

import grpc
import orjson
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from factorychain._core.logging import get_logger
from factorychain.errors import (
    ChainDegraded,
    ErrorCode,
    FactoryChainError,
    FieldViolation,
    InternalFault,
    NotImplementedYet,
    Precondition,
    Quota,
    TokenInvalid,
    error_class,
)

log = get_logger(__name__)

DOMAIN = "factorychain"
DETAILS_KEY = "grpc-status-details-bin"
# Status travels in headers, once percent-encoded and once base64: keep it far below their limit.
MESSAGE_MAX_CHARS = 1000
LISTED_MAX = 20


def as_error(error: BaseException, *, where: str) -> FactoryChainError:
    """The error as it may leave; one that is not of the tree is logged with a new incident id."""
    known = _known(error)
    if known is not None:
        return known
    incident = secrets.token_hex(8)
    log.error("an unexpected failure", incident=incident, where=where, exc_info=error)
    return InternalFault(incident)


def _known(error: BaseException) -> FactoryChainError | None:
    # A task group wraps what its only failing task raised.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, FactoryChainError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    return None


def to_status(error: FactoryChainError) -> status_pb2.Status:
    """The error as `google.rpc.Status`, with ErrorInfo and whatever other detail it has."""
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=error.message[:MESSAGE_MAX_CHARS]
    )
    status.details.extend(_packed(detail) for detail in _details(error))
    return status


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _details(error: FactoryChainError) -> list[Message]:
    metadata = dict(error.metadata)
    if error.reason != error.default_reason:
        # An agent's or an event's own reason: the class is known by its default one.
        metadata["kind"] = error.default_reason
    if error.names:
        metadata["names"] = orjson.dumps(error.names[:LISTED_MAX]).decode()
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(0, round(error.retry_after_s * 1000)))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.field_violations:
        details.append(_bad_request(error))
    if error.quota is not None:
        details.append(_quota_failure(error.quota))
    if error.precondition is not None:
        details.append(_precondition_failure(error.precondition))
    return details


def _bad_request(error: FactoryChainError) -> Message:
    detail: Message = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=each.field, description=each.description[:MESSAGE_MAX_CHARS]
            )
            for each in error.field_violations[:LISTED_MAX]
        ]
    )
    return detail


def _quota_failure(quota: Quota) -> Message:
    violation = error_details_pb2.QuotaFailure.Violation(
        subject=quota.subject, description=quota.description
    )
    detail: Message = error_details_pb2.QuotaFailure(violations=[violation])
    return detail


def _precondition_failure(precondition: Precondition) -> Message:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=precondition.type,
        subject=precondition.subject,
        description=precondition.description,
    )
    detail: Message = error_details_pb2.PreconditionFailure(violations=[violation])
    return detail


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: FactoryChainError) -> Never:
    """Ends the call with the error."""
    status = to_status(error)
    await context.abort(
        getattr(grpc.StatusCode, error.code.value),
        status.message,
        ((DETAILS_KEY, status.SerializeToString()),),
    )


def from_rpc_error(error: grpc.aio.AioRpcError, layer: str = "the chain") -> FactoryChainError:
    """The error that a peer answered; `layer` names the peer where it says nothing itself."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            found = _from_details(value)
            if found is not None:
                return found
    return _from_code(error.code(), layer)


def _from_details(value: bytes) -> FactoryChainError | None:
    try:
        return from_status(status_pb2.Status.FromString(value))
    except DecodeError:
        return None


def from_status(status: status_pb2.Status) -> FactoryChainError | None:
    """The error in a status; None if it is not of this chain."""
    info = error_details_pb2.ErrorInfo()
    if not _unpack(status, info) or info.domain != DOMAIN:
        return None
    metadata = dict(info.metadata)
    names = orjson.loads(metadata.pop("names", "[]"))
    return error_class(metadata.pop("kind", info.reason)).restored(
        status.message,
        reason=info.reason,
        code=ErrorCode(code_pb2.Code.Name(status.code)),
        retry_after_s=_retry_after_s(status),
        field_violations=_field_violations(status),
        quota=_quota(status),
        precondition=_precondition(status),
        names=names,
        metadata=metadata,
    )


def _unpack(status: status_pb2.Status, into: Message) -> bool:
    return any(each.Is(into.DESCRIPTOR) and each.Unpack(into) for each in status.details)


def _retry_after_s(status: status_pb2.Status) -> float | None:
    info = error_details_pb2.RetryInfo()
    if not _unpack(status, info):
        return None
    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)


def _field_violations(status: status_pb2.Status) -> list[FieldViolation]:
    found = error_details_pb2.BadRequest()
    _unpack(status, found)
    return [FieldViolation(each.field, each.description) for each in found.field_violations]


def _quota(status: status_pb2.Status) -> Quota | None:
    found = error_details_pb2.QuotaFailure()
    _unpack(status, found)
    return next((Quota(each.subject, each.description) for each in found.violations), None)


def _precondition(status: status_pb2.Status) -> Precondition | None:
    found = error_details_pb2.PreconditionFailure()
    _unpack(status, found)
    violations = found.violations
    return next((Precondition(v.type, v.subject, v.description) for v in violations), None)


def _from_code(code: grpc.StatusCode, layer: str) -> FactoryChainError:
    """What a status without our details means: it came from gRPC itself, not from a handler."""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ChainDegraded(layer)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ChainDegraded(layer, message=f"{layer} did not answer in time; try again")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return NotImplementedYet(f"this call of {layer}")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return TokenInvalid()
    return FactoryChainError(
        f"{layer} answered {code.name}", reason=code.name, code=ErrorCode(code.name)
    )


def to_json(error: FactoryChainError) -> dict[str, str | float]:
    """The error as clients see it on a socket or over HTTP."""
    body: dict[str, str | float] = {
        "code": error.code.value,
        "reason": error.reason,
        "message": error.message,
    }
    if error.retry_after_s is not None:
        body["retry_after_s"] = error.retry_after_s
    return body
