"""The one tree of errors.

Every refusal that leaves a layer is one of these, with a stable `reason`; `factorychain._core.status`
is the only place that turns them into `google.rpc.Status` and back. The message of any of them may
be shown to a user, so it never carries someone else's data or the text of an unknown exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self


class ErrorCode(StrEnum):
    """The canonical status codes, by gRPC's names."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that was reached: whose it is and what it says."""

    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class Precondition:
    """A condition that does not hold: its kind, what it is about, what would mend it."""

    type: str
    subject: str
    description: str


class FactoryChainError(Exception):
    """The base of all; also what a reason that this version does not know is read as."""

    default_code: ClassVar[ErrorCode] = ErrorCode.UNKNOWN
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        code: ErrorCode | None = None,
        retry_after_s: float | None = None,
        field_violations: Iterable[FieldViolation] = (),
        quota: Quota | None = None,
        precondition: Precondition | None = None,
        names: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s
        self.field_violations = tuple(field_violations)
        self.quota = quota
        self.precondition = precondition
        self.names = tuple(names)
        self.metadata: dict[str, str] = dict(metadata or {})

    @classmethod
    def restored(
        cls,
        message: str,
        *,
        reason: str,
        code: ErrorCode,
        retry_after_s: float | None = None,
        field_violations: Iterable[FieldViolation] = (),
        quota: Quota | None = None,
        precondition: Precondition | None = None,
        names: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Self:
        """The error as it was raised elsewhere, whatever its own constructor takes."""
        error = cls.__new__(cls)
        FactoryChainError.__init__(
            error,
            message,
            reason=reason,
            code=code,
            retry_after_s=retry_after_s,
            field_violations=field_violations,
            quota=quota,
            precondition=precondition,
            names=names,
            metadata=metadata,
        )
        return error

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries; the constructors of subclasses differ."""
        return (_unpickled, (type(self), self.__dict__))


def _unpickled(cls: type[FactoryChainError], state: dict[str, object]) -> FactoryChainError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


def error_class(reason: str) -> type[FactoryChainError]:
    """The class for a reason; the base for one that this version does not know."""
    return _BY_REASON.get(reason, FactoryChainError)


# --- what is wrong with a request ----------------------------------------------------------


class InvalidField(FactoryChainError):
    """A field of the request is malformed."""

    default_code = ErrorCode.INVALID_ARGUMENT
    default_reason = "INVALID_FIELD"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field_violations=[FieldViolation(field, problem)])

    @property
    def field(self) -> str:
        return self.field_violations[0].field if self.field_violations else ""


class TokenInvalid(FactoryChainError):
    """The credential is missing or does not verify. The message never quotes the credential."""

    default_code = ErrorCode.UNAUTHENTICATED
    default_reason = "TOKEN_INVALID"

    def __init__(self, message: str = "the token is not valid here") -> None:
        super().__init__(message)


class TokenExpired(FactoryChainError):
    """The credential was valid once."""

    default_code = ErrorCode.UNAUTHENTICATED
    default_reason = "TOKEN_EXPIRED"

    def __init__(self, message: str = "the token has expired; get a new one") -> None:
        super().__init__(message)


class NotImplementedYet(FactoryChainError):
    """The interface is fixed, its implementation is not in this version."""

    default_code = ErrorCode.UNIMPLEMENTED
    default_reason = "NOT_IMPLEMENTED"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not in this version yet")


# --- limits --------------------------------------------------------------------------------


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class UserEngineLimit(FactoryChainError):
    """The user has as many active runs as are allowed."""

    default_code = ErrorCode.RESOURCE_EXHAUSTED
    default_reason = "USER_ENGINE_LIMIT"

    def __init__(self, limit: int, *, retry_after_s: float) -> None:
        runs = _counted(limit, "active run")
        message = (
            f"you have {runs}, which is the limit; "
            "wait for one to end, cancel one, or start with on_busy enqueue"
        )
        super().__init__(
            message, retry_after_s=retry_after_s, quota=Quota("user:active_runs", f"limit {limit}")
        )


class UserQueueLimit(FactoryChainError):
    """The user has as many queued runs as are allowed."""

    default_code = ErrorCode.RESOURCE_EXHAUSTED
    default_reason = "USER_QUEUE_LIMIT"

    def __init__(self, limit: int, *, retry_after_s: float) -> None:
        message = f"you have {_counted(limit, 'queued run')}, which is the limit"
        super().__init__(
            message, retry_after_s=retry_after_s, quota=Quota("user:queued_runs", f"limit {limit}")
        )


class Capacity(FactoryChainError):
    """The whole system, or one replica of a layer, is full."""

    default_code = ErrorCode.RESOURCE_EXHAUSTED
    default_reason = "CAPACITY"

    def __init__(
        self,
        message: str = "no capacity is free right now; try again",
        *,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class SlowConsumer(FactoryChainError):
    """The reader fell behind its bounded queue; nothing is lost, it resumes from its last seq."""

    default_code = ErrorCode.RESOURCE_EXHAUSTED
    default_reason = "SLOW_CONSUMER"

    def __init__(
        self, message: str = "reading too slowly; resume from the last seq you have"
    ) -> None:
        super().__init__(message)


# --- runs, threads and agents --------------------------------------------------------------


class ThreadBusy(FactoryChainError):
    """The thread already has a run; `run` names it."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "THREAD_BUSY"

    def __init__(self, run: str) -> None:
        description = (
            f"run {run} has not ended; "
            "wait for it, cancel it, or start with on_busy enqueue or interrupt"
        )
        super().__init__(
            f"the thread already has a run: {description}",
            precondition=Precondition("THREAD_BUSY", run, description),
            metadata={"run": run},
        )

    @property
    def run(self) -> str:
        return self.metadata.get("run", "")


class AgentNotFound(FactoryChainError):
    """There is no such agent, or it is not for this user."""

    default_code = ErrorCode.NOT_FOUND
    default_reason = "AGENT_NOT_FOUND"

    def __init__(self, agent: str, known: Iterable[str] = ()) -> None:
        listed = ", ".join(known)
        super().__init__(
            f"no agent is called {agent!r}" + (f"; there are: {listed}" if listed else "")
        )


class AgentDependencyMissing(FactoryChainError):
    """The agent is registered, but `names` of what it needs cannot be made."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "AGENT_DEPENDENCY_MISSING"

    def __init__(self, names: Iterable[str]) -> None:
        missing = tuple(names)
        super().__init__(
            f"the agent cannot be started, it misses: {', '.join(missing)}", names=missing
        )


class SubAgentRefused(FactoryChainError):
    """An agent cannot be run inside of this run."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "SUB_AGENT_REFUSED"

    def __init__(self, agent: str, why: str) -> None:
        super().__init__(f"{agent} cannot be run inside of this run: {why}", names=[agent])


class RunNotFound(FactoryChainError):
    """The run is not there or not the caller's; which of the two is never said."""

    default_code = ErrorCode.NOT_FOUND
    default_reason = "RUN_NOT_FOUND"

    def __init__(self, message: str = "no such run") -> None:
        super().__init__(message)


class ThreadNotFound(FactoryChainError):
    """The thread is not there or not the caller's; which of the two is never said."""

    default_code = ErrorCode.NOT_FOUND
    default_reason = "THREAD_NOT_FOUND"

    def __init__(self, message: str = "no such thread") -> None:
        super().__init__(message)


class CredentialNotFound(FactoryChainError):
    """The operator has mapped nothing of this name for the user of the run."""

    default_code = ErrorCode.NOT_FOUND
    default_reason = "CREDENTIAL_NOT_FOUND"

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        listed = ", ".join(sorted(known))
        super().__init__(
            f"no credential is called {name!r} for this user; "
            + (f"there are: {listed}" if listed else "there are none")
            + " (the operator maps them in FACTORYCHAIN_CREDENTIALS_FILE)"
        )


class RunExists(FactoryChainError):
    """This run and attempt was accepted before."""

    default_code = ErrorCode.ALREADY_EXISTS
    default_reason = "RUN_EXISTS"

    def __init__(self, message: str = "this run and attempt was already accepted") -> None:
        super().__init__(message)


class RunEnded(FactoryChainError):
    """The run already has its ending in the log."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "RUN_ENDED"

    def __init__(self, message: str = "the run has already ended") -> None:
        super().__init__(message)


class AttemptSuperseded(FactoryChainError):
    """A later attempt of the run writes now."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "ATTEMPT_SUPERSEDED"

    def __init__(self, message: str = "a later attempt of the run has taken over") -> None:
        super().__init__(message)


class RequestNotFound(FactoryChainError):
    """The run has asked nothing of this id; `names` are the requests that are open."""

    default_code = ErrorCode.NOT_FOUND
    default_reason = "REQUEST_NOT_FOUND"

    def __init__(self, open_requests: Iterable[str] = ()) -> None:
        names = tuple(open_requests)
        waits = f"open are: {', '.join(names)}" if names else "it waits for no answer"
        super().__init__(f"the run has no such request; {waits}", names=names)


class RequestAnswered(FactoryChainError):
    """The request has another answer already."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "REQUEST_ANSWERED"

    def __init__(self, request: str) -> None:
        super().__init__(
            f"request {request} was answered before, with another value; that one counts"
        )


class RequestClosed(FactoryChainError):
    """The agent waits for this answer no longer."""

    default_code = ErrorCode.FAILED_PRECONDITION
    default_reason = "REQUEST_CLOSED"

    def __init__(self, request: str, why: str = "its time is over") -> None:
        super().__init__(f"request {request} can be answered no longer: {why}")


class StateConflict(FactoryChainError):
    """Something else was stored in the thread meanwhile; nothing was changed. Load it again."""

    default_code = ErrorCode.ABORTED
    default_reason = "STATE_CONFLICT"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} was changed meanwhile; load it again", names=[name])


class StateLimit(FactoryChainError):
    """What an agent wants to keep in its thread is more than it may."""

    default_code = ErrorCode.RESOURCE_EXHAUSTED
    default_reason = "STATE_LIMIT"

    def __init__(self, message: str) -> None:
        super().__init__(message)


class EventRejected(FactoryChainError):
    """One event was refused, with a reason of its own; the run goes on without it."""

    default_code = ErrorCode.INVALID_ARGUMENT
    default_reason = "EVENT_REJECTED"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)


# --- the chain itself ----------------------------------------------------------------------


class ChainDegraded(FactoryChainError):
    """A layer, or what it needs, is away; `layer` names it."""

    default_code = ErrorCode.UNAVAILABLE
    default_reason = "CHAIN_DEGRADED"

    def __init__(
        self, layer: str, *, retry_after_s: float = 1.0, message: str | None = None
    ) -> None:
        super().__init__(
            message or f"{layer} is not available right now; try again",
            retry_after_s=retry_after_s,
            metadata={"layer": layer},
        )

    @property
    def layer(self) -> str:
        return self.metadata.get("layer", "")


class InternalFault(FactoryChainError):
    """Something that should not happen; the log has it under `incident`."""

    default_code = ErrorCode.INTERNAL
    default_reason = "INTERNAL"

    def __init__(self, incident: str) -> None:
        super().__init__(
            f"something went wrong here; incident {incident}", metadata={"incident": incident}
        )

    @property
    def incident(self) -> str:
        return self.metadata.get("incident", "")


# --- for authors of agents -----------------------------------------------------------------


class AgentError(FactoryChainError):
    """Raised by an agent: its text reaches the user as the run's `agent_failed`."""

    default_code = ErrorCode.ABORTED
    default_reason = "AGENT_ERROR"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "AGENT_ERROR",
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        told = {"retryable": "true"} if retryable else None
        super().__init__(message, reason=reason, retry_after_s=retry_after_s, metadata=told)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.metadata.get("retryable") == "true"


class ToolError(FactoryChainError):
    """Raised by a tool: its text reaches the user in `tool_completed`, the agent may go on."""

    default_code = ErrorCode.ABORTED
    default_reason = "TOOL_ERROR"

    def __init__(self, message: str, reason: str = "TOOL_ERROR") -> None:
        super().__init__(message, reason=reason)


class InputTimeout(AgentError):
    """Raised by `ctx.ask`: nobody has answered in time. Uncaught it ends the run with this text."""

    default_reason = "INPUT_TIMEOUT"

    def __init__(self, message: str = "Nobody answered in time") -> None:
        super().__init__(message, reason="INPUT_TIMEOUT", retryable=True)


_CLASSES: list[type[FactoryChainError]] = [*FactoryChainError.__subclasses__(), InputTimeout]
_BY_REASON = {each.default_reason: each for each in _CLASSES}
