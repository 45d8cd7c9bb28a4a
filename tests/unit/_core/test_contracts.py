"""Every RPC has a contract, and what is incomplete is refused."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from factorychain._core.contracts import (
    ContractMissing,
    Credential,
    FactoryLayerContract,
    all_contracts,
    chain_services,
    contract_of,
)
from factorychain.errors import FactoryChainError
from factorychain.types.v1 import contract_pb2

REASONS = {each.default_reason for each in FactoryChainError.__subclasses__()}


def method_with(options: descriptor_pb2.MethodOptions) -> MethodDescriptor:
    """A method of some service, with these options."""
    file = descriptor_pb2.FileDescriptorProto(name="other.proto", package="factorychain.other.v1")
    file.message_type.add(name="Nothing")
    nothing = ".factorychain.other.v1.Nothing"
    method = file.service.add(name="Other").method.add(
        name="Call", input_type=nothing, output_type=nothing
    )
    method.options.CopyFrom(options)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("factorychain.other.v1.Other").methods[0]


def test_every_method_of_every_layer_has_a_contract() -> None:
    methods = sum(len(service.methods) for service in chain_services())
    assert len(all_contracts()) == methods > 20
    assert {each.layer for each in all_contracts()} == {"engine", "agents", "emitter", "bridge"}


@pytest.mark.parametrize("contract", all_contracts(), ids=lambda each: each.path)
def test_a_contract_is_complete(contract: FactoryLayerContract) -> None:
    assert contract.guarantees
    assert 0 < contract.bounds_ms["p50"] <= contract.bounds_ms["p99"]
    assert contract.p99_s == contract.bounds_ms["p99"] / 1000
    assert contract.errors <= REASONS
    if contract.credential in (Credential.USER, Credential.TXN):
        assert {"TOKEN_INVALID", "TOKEN_EXPIRED"} <= contract.errors


def test_only_what_the_proto_calls_repeat_safe_is() -> None:
    by_method = {(each.layer, each.method): each for each in all_contracts()}
    assert by_method["engine", "GetRun"].repeat_safe
    assert by_method["engine", "StartRun"].repeat_safe
    assert not by_method["engine", "RespondToRun"].repeat_safe
    assert not by_method["agents", "Respond"].repeat_safe


def test_a_method_without_a_contract_is_refused() -> None:
    with pytest.raises(ContractMissing, match=r"Other\.Call has no contract"):
        contract_of(method_with(descriptor_pb2.MethodOptions()))


def test_a_contract_without_a_credential_is_refused() -> None:
    options = descriptor_pb2.MethodOptions()
    options.Extensions[contract_pb2.contract].guarantees.append("something")
    with pytest.raises(ContractMissing, match="names no credential"):
        contract_of(method_with(options))
