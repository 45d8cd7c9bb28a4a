"""Who calls: the credential of each call, as its contract demands.

Invariant: a handler that asks for the user or the run gets the one whose token this very call
carried and this process verified. What was found lives in a contextvar of the call's own task.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from factorychain._core.contracts import Credential, FactoryLayerContract
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.errors import TokenInvalid

USER_HEADER = "authorization"
TXN_HEADER = "txn-token"
RUN_SCOPE = frozenset({"run"})


class VerifiedUser(Protocol):
    """A user whose token was verified."""

    @property
    def principal(self) -> Principal: ...

    @property
    def expires_at_s(self) -> float: ...

    @property
    def claims(self) -> Mapping[str, Any]: ...


class UserVerifier(Protocol):
    """Verifies users' tokens; raises TokenInvalid or TokenExpired."""

    async def verify(self, token: str) -> VerifiedUser: ...

    def verify_cached(self, token: str) -> VerifiedUser | None: ...


class TxnVerifier(Protocol):
    """Verifies transaction tokens of the given scopes; raises TokenInvalid or TokenExpired."""

    def verify(self, token: str, scopes: Collection[str]) -> UserExecutionContext: ...


@dataclass(slots=True)
class CallContext:
    """What is known of the call that the current task serves."""

    deadline_s: float | None = None  # by time.monotonic()
    user: VerifiedUser | None = None
    user_token: str = ""
    run: UserExecutionContext | None = None

    @property
    def expires_at_s(self) -> float | None:
        """When the call's credential is worth nothing any more, in Unix seconds."""
        if self.user is not None:
            return self.user.expires_at_s
        return self.run.expires_at_s if self.run is not None else None


_call: ContextVar[CallContext | None] = ContextVar("factorychain_call", default=None)


def enter_call(call: CallContext) -> None:
    """Makes it the current call of this task, which serves nothing else after it."""
    _call.set(call)


def current_user() -> VerifiedUser:
    """The user of the call that this task serves."""
    call = _call.get()
    if call is None or call.user is None:
        raise RuntimeError("no user here: the call's contract does not take a user's token")
    return call.user


def current_user_token() -> str:
    """The verified token itself, to forward to another layer; never to log."""
    current_user()
    call = _call.get()
    return call.user_token if call is not None else ""


def current_run() -> UserExecutionContext:
    """The run of the call that this task serves."""
    call = _call.get()
    if call is None or call.run is None:
        raise RuntimeError("no run here: the call's contract does not take a transaction token")
    return call.run


def remaining_s() -> float | None:
    """Seconds until the caller of the current call stops waiting; None if it does not."""
    call = _call.get()
    if call is None or call.deadline_s is None:
        return None
    return max(0.0, call.deadline_s - time.monotonic())


Metadata = Iterable[tuple[str, str | bytes]]


class Authenticator:
    """Checks the credential that a contract names. What is not configured is refused at start."""

    def __init__(
        self, *, users: UserVerifier | None = None, txns: TxnVerifier | None = None
    ) -> None:
        self._users = users
        self._txns = txns

    def require(self, contract: FactoryLayerContract) -> None:
        """Raises ValueError if a call under this contract could never be checked."""
        missing = {
            Credential.USER: self._users is None,
            Credential.TXN: self._txns is None and not contract.client_streaming,
        }.get(contract.credential, False)
        if missing:
            raise ValueError(
                f"{contract.path} takes a {contract.credential.name} credential, and this server "
                "has nothing to verify it with"
            )

    async def admit(
        self,
        contract: FactoryLayerContract,
        metadata: Metadata,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> CallContext:
        """What the call may be served as; raises TokenInvalid or TokenExpired."""
        call = CallContext(_deadline(context))
        if contract.credential is Credential.USER:
            await self._admit_user(call, metadata)
        elif contract.credential is Credential.TXN:
            # On streams of many runs each RunOpen brings the token of its run.
            if not contract.client_streaming:
                self._admit_run(call, metadata)
        elif contract.credential is Credential.PEER:
            _admit_peer(context)
        return call

    async def _admit_user(self, call: CallContext, metadata: Metadata) -> None:
        token = bearer(metadata)
        if self._users is None:
            raise TokenInvalid
        call.user = self._users.verify_cached(token) or await self._users.verify(token)
        call.user_token = token

    def _admit_run(self, call: CallContext, metadata: Metadata) -> None:
        token = _header(metadata, TXN_HEADER)
        if not token or self._txns is None:
            raise TokenInvalid(f"the call carries no transaction token (metadata {TXN_HEADER})")
        call.run = self._txns.verify(token, RUN_SCOPE)


def _deadline(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    left_s: object = context.time_remaining()  # None without a deadline, whatever its type says
    return time.monotonic() + left_s if isinstance(left_s, float) else None


def _admit_peer(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Over TLS the peer must have shown a certificate; without TLS the network is the boundary."""
    transport = context.auth_context()
    if not any(b"ssl" in kind for kind in transport.get("transport_security_type", ())):
        return
    if not context.peer_identities():
        raise TokenInvalid("the peer showed no certificate")


def bearer(metadata: Metadata) -> str:
    """The token in `authorization: Bearer …`; raises TokenInvalid if there is none."""
    scheme, _, token = _header(metadata, USER_HEADER).partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise TokenInvalid(f"the call carries no user token (metadata {USER_HEADER}: Bearer …)")
    return token


def _header(metadata: Metadata, name: str) -> str:
    for key, value in metadata:
        if key == name:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
