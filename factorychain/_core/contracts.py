"""Layer contracts, read from the method option in the protos.

Invariant: a method without a complete contract cannot be served; `contract_of` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from factorychain.types.v1 import contract_pb2

CARRY_CALLS = "CarryCalls"
"""The method of a service that carries calls of others."""


class ContractMissing(Exception):
    """A method of a service has no contract, or one without a credential."""


class Credential(Enum):
    """Which credential a call takes."""

    USER = contract_pb2.CREDENTIAL_USER
    TXN = contract_pb2.CREDENTIAL_TXN
    PEER = contract_pb2.CREDENTIAL_PEER
    NONE = contract_pb2.CREDENTIAL_NONE


@dataclass(frozen=True, slots=True)
class FactoryLayerContract:
    """What one call needs, promises, how it can fail and how fast it is."""

    path: str  # as on the wire: /factorychain.engine.v1.EngineService/StartRun
    layer: str  # engine, agents, emitter, bridge
    service: str  # full name
    method: str
    requires: tuple[str, ...]
    guarantees: tuple[str, ...]
    errors: frozenset[str]
    credential: Credential
    bounds_ms: Mapping[str, float]  # by name: p50, p99
    repeat_safe: bool  # the proto's idempotency_level says so
    client_streaming: bool
    server_streaming: bool
    carried: bool
    """Whether it can also be called on the stream of `CARRY_CALLS`."""

    @property
    def p99_s(self) -> float | None:
        bound = self.bounds_ms.get("p99")
        return None if bound is None else bound / 1000

    @property
    def unary(self) -> bool:
        return not (self.client_streaming or self.server_streaming)


_REPEAT_SAFE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


def contract_of(method: MethodDescriptor) -> FactoryLayerContract:
    """The contract of a method; raises ContractMissing if it has none or an incomplete one."""
    options = method.GetOptions()
    service = method.containing_service
    where = f"{service.full_name}.{method.name}"
    if not options.HasExtension(contract_pb2.contract):
        raise ContractMissing(f"{where} has no contract option; add one in its .proto")
    declared = options.Extensions[contract_pb2.contract]
    if declared.credential == contract_pb2.CREDENTIAL_UNSPECIFIED:
        raise ContractMissing(f"the contract of {where} names no credential")
    return FactoryLayerContract(
        path=f"/{service.full_name}/{method.name}",
        layer=service.full_name.split(".")[1],
        service=service.full_name,
        method=method.name,
        requires=tuple(declared.requires),
        guarantees=tuple(declared.guarantees),
        errors=frozenset(declared.errors),
        credential=Credential(declared.credential),
        bounds_ms={name.removesuffix("_ms"): value for name, value in declared.bounds.items()},
        repeat_safe=options.idempotency_level in _REPEAT_SAFE,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        carried=declared.carried,
    )


def contracts_of(service: ServiceDescriptor) -> tuple[FactoryLayerContract, ...]:
    """The contracts of a service's methods, in the order of the proto."""
    return tuple(contract_of(method) for method in service.methods)


def chain_services() -> Iterator[ServiceDescriptor]:
    """The descriptors of the four layers' services, in the order of the chain."""
    from factorychain.agents.v1 import agents_pb2
    from factorychain.bridge.v1 import bridge_pb2
    from factorychain.emitter.v1 import emitter_pb2
    from factorychain.engine.v1 import engine_pb2

    for module in (engine_pb2, agents_pb2, emitter_pb2, bridge_pb2):
        yield from module.DESCRIPTOR.services_by_name.values()


@cache
def all_contracts() -> tuple[FactoryLayerContract, ...]:
    """The contract of every method of every layer."""
    return tuple(contract for service in chain_services() for contract in contracts_of(service))


@cache
def carried_contracts() -> Mapping[str, FactoryLayerContract]:
    """The contracts of what can be called on a stream of `CARRY_CALLS`, by path."""
    return {each.path: each for each in all_contracts() if each.carried}
