"""What a simulation need not do again for every replica of every seed.

Invariant: each of these is a function of its arguments alone, or of the installed code, so that
remembering it changes no course: only the time that a seed takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from factorychain._core import grpc_server, jwks, jws, keys, user_tokens
from factorychain._instance.definition import AgentDefinition
from factorychain._instance.injection import Injection, Made
from factorychain_agents import registry
from factorychain_agents.process.machine import OutOfMemory
from factorychain_bridge.edge import http


def take() -> None:
    """Once in a process, after `reality.take_over`."""
    grpc_server.contracts_of = cache(grpc_server.contracts_of)  # type: ignore[attr-defined]
    # No file changes here.
    http._console = cache(http._console)
    jwks.JwksFile.current = lambda self: _keys_in(self._path)  # type: ignore[method-assign]
    user_tokens.read_secret = cache(user_tokens.read_secret)  # type: ignore[attr-defined]
    keys.TxnKey.from_file = cache(keys.TxnKey.from_file)  # type: ignore[method-assign]
    OutOfMemory._kills = lambda self: 0  # type: ignore[method-assign]  # there are no processes
    jws.sign = _sign  # where the signer looks it up
    jws.verified_claims = _claims  # and the verifier
    user_tokens._signed_payload = _signed_payload
    registry.Injection = _injection  # type: ignore[attr-defined, assignment]  # makes one
    # A weak set of every task that is not done: only debuggers read it.
    asyncio.tasks._all_tasks.add = lambda _: None  # type: ignore[attr-defined]


_keys_in = cache(lambda path: jwks.parse_jwks(Path(path).read_bytes()))
_public_bytes = cache(lambda key: key.public_key().public_bytes_raw())
_UNCHECKED = "-" * 86
_claims_of = jws.verified_claims
_payload_of = user_tokens._signed_payload
_signed_here: set[tuple[str, bytes]] = set()
_claimed: dict[tuple[str, bytes], dict[str, Any]] = {}
_payloads: dict[tuple[str, bytes], bytes] = {}


def _sign(claims: dict[str, Any], key: Ed25519PrivateKey, *, typ: str, kid: str) -> str:
    """Without a signature that anybody else could check: nobody else is there."""
    token = f"{_header(typ, kid)}.{jws.b64url(orjson.dumps(claims))}.{_UNCHECKED}"
    _signed_here.add((token, _public_bytes(key)))
    return token


@cache
def _header(typ: str, kid: str) -> str:
    return jws.b64url(orjson.dumps({"typ": typ, "alg": jws.ALGORITHM, "kid": kid}))


def _claims(token: str, key: Ed25519PublicKey) -> dict[str, Any]:
    """A signature that was made here, or that one replica has checked, need not be checked again."""
    about = token, key.public_bytes_raw()
    if about not in _claimed:
        known = about in _signed_here
        _claimed[about] = jws._parse(token.split(".")[1]) if known else _claims_of(token, key)
    return dict(_claimed[about])


def _signed_payload(token: str, header: Mapping[str, Any], key: bytes) -> bytes:
    known = _payloads.get((token, key))
    if known is None:
        known = _payloads[token, key] = _payload_of(token, header, key)
    return known


class _Started(Injection):
    """One that is shared by all replicas, since agents of a simulation share nothing by it."""

    async def start(self) -> None:
        if self._container is None:
            await super().start()

    async def close(self) -> None:
        """The next replica goes on with it."""


_injections: dict[tuple[str, ...], Injection] = {}


def _injection(
    module: ModuleType | None,
    definitions: Iterable[AgentDefinition],
    *,
    made: dict[Hashable, Made] | None = None,
) -> Injection:
    wanted = tuple(definitions)
    names = tuple(each.name for each in wanted)
    if names not in _injections:
        _injections[names] = _Started(module, wanted, made=made)
        _at_once(_injections[names].start)
    return _injections[names]


def _at_once(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        work().send(None)
    except StopIteration:
        return
    raise AssertionError("agents of a simulation wait for nothing when they are prepared")
