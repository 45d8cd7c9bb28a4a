"""Calls between the services against the p99 that each RPC's contract states in its proto.

Every service counts what it answers and what of that was later than its contract says; both are read
before and after one user's starts from rest, and what a client reads afterwards. At most one in a hundred
late is a p99 that is kept, exactly: no bucket of a histogram is between.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from factorychain._core.contracts import Credential, all_contracts, contract_of
from factorychain.engine.v1 import engine_pb2
from tests.bench.product import bench_sockets, start_short
from tests.e2e.chain import Chain
from tests.e2e.held import LAYERS, held

_USER = "contracts"
_WARM_UP = 20
_REST_S = 0.02
_DURATION = "rpc.server.call.duration{"
_SLOW = "factorychain.contract.breaches{breach=slow,rpc.method="
LATE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Kept:
    """How one RPC kept its contract."""

    name: str
    mean_ms: float
    calls: int
    late: int
    """Answered later than the contract's p99."""
    p99_ms: float

    @property
    def is_kept(self) -> bool:
        """Whether the p99 was within its bound."""
        return self.late <= self.calls * LATE_SHARE

    def __str__(self) -> str:
        verdict = "" if self.is_kept else "   NOT KEPT"
        return f"mean {self.mean_ms:7.2f} ms   {self.late} of {self.calls} later{verdict}"


@dataclass(frozen=True, slots=True)
class _Counted:
    """What was counted of one RPC so far."""

    calls: int = 0
    seconds: float = 0.0
    late: int = 0

    def since(self, before: _Counted) -> _Counted:
        """A stream that was opened before, for good, has nothing since: then what there is of it."""
        if self.calls == before.calls:
            return self
        return _Counted(
            self.calls - before.calls, self.seconds - before.seconds, self.late - before.late
        )


async def contracts_kept(chain: Chain, *, rounds: int) -> list[Kept]:
    """Every RPC that was called, in the order of the chain."""
    await _use(chain, _WARM_UP)
    before = await _counted(chain)
    await _use(chain, rounds)
    after = await _counted(chain)
    found = []
    for contract in all_contracts():
        path, bound_ms = contract.path[1:], contract.bounds_ms.get("p99")
        if path in after and bound_ms is not None:
            seen = after[path].since(before.get(path, _Counted()))
            mean_ms = seen.seconds / seen.calls * 1e3
            name = f"{contract.layer} {contract.method}"
            found.append(Kept(name, mean_ms, seen.calls, seen.late, bound_ms))
    assert found, "no service has counted a call"
    return found


async def _counted(chain: Chain) -> dict[str, _Counted]:
    found: dict[str, _Counted] = {}
    for layer in LAYERS:
        instruments = (await held(chain, layer))["instruments"]
        for name, summary in instruments.items():
            if name.startswith(_DURATION):
                labels = dict(each.split("=", 1) for each in name[:-1].partition("{")[2].split(","))
                path = labels["rpc.method"]
                known = found.get(path, _Counted())
                found[path] = _Counted(
                    known.calls + int(summary["count"]),
                    known.seconds + summary["count"] * summary["mean"],
                    int(instruments.get(f"{_SLOW}{path}}}", 0)),
                )
    return found


async def _use(chain: Chain, rounds: int) -> None:
    """One user who starts a run from rest, and then reads everything about it."""
    async with (
        bench_sockets(chain, 1, _USER) as (socket,),
        grpc.aio.insecure_channel(chain.state.engine) as channel,
    ):
        reading = _Reading(channel, chain.token(f"{_USER}-0"))
        for _ in range(rounds):
            await asyncio.sleep(_REST_S)
            await start_short(socket)
            await reading.everything()


class _Reading:
    """What a client reads: of the engine's calls those that change nothing."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)
        service = engine_pb2.DESCRIPTOR.services_by_name["EngineService"]
        self._calls = {each: _call(channel, each) for each in service.methods if _reads(each)}

    async def everything(self) -> None:
        """Each once, about the user's last run."""
        listed = await self._call("ListRuns", engine_pb2.ListRunsRequest(page_size=1))
        known = {"run": listed.runs[0].run, "thread": listed.runs[0].thread}
        for method in self._calls:
            await self._call(method.name, _about(method, known))

    # Any: which message it is depends on the method.
    async def _call(self, name: str, request: Any) -> Any:
        call = next(call for method, call in self._calls.items() if method.name == name)
        return await call(request, metadata=self._metadata)


def _reads(method: MethodDescriptor) -> bool:
    contract = contract_of(method)
    ours = contract.credential in (Credential.USER, Credential.NONE)
    return ours and contract.unary and method.name.startswith(("Get", "List"))


def _call(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:
    answer = message_factory.GetMessageClass(method.output_type)
    return channel.unary_unary(
        contract_of(method).path,
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=answer.FromString,
    )


def _about(method: MethodDescriptor, known: dict[str, str]) -> Any:
    names = {each.name for each in method.input_type.fields}
    values = {name: value for name, value in known.items() if name in names}
    return message_factory.GetMessageClass(method.input_type)(**values)
