"""What is someone else's is not found, on every call that takes an id.

The calls are read from the descriptors: a new one that takes a run or a thread is tested by being there,
and a field of a new name must be said to be an id, or none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from factorychain.agents.v1 import agents_pb2
from factorychain.bridge.v1 import bridge_pb2
from factorychain.emitter.v1 import emitter_pb2
from factorychain.engine.v1 import engine_pb2
from factorychain.types.v1 import contract_pb2
from tests.e2e.chain import Chain
from tests.e2e.sockets import connected

on_the_chains_loop = pytest.mark.asyncio(loop_scope="session")

_FILES = (agents_pb2, bridge_pb2, emitter_pb2, engine_pb2)
_IDS = ("run", "thread")
_BESIDE_AN_ID = {
    "replaces", "resumes",  # runs of the thread that the call names or its token speaks for
    "request", "open_calls", "open_requests",  # of its run
    "request_id", "page_token", "name",  # of the user, and of the thread of the token's run
    "token",  # says itself for whom it speaks
}  # fmt: skip
_NO_ID = {
    "agent", "comment", "title", "reason", "trace", "description", "value", "key", "method",
    "input_json", "metadata_json", "resume_json", "value_json",
}  # fmt: skip
_CALL_S = 60.0
THREAD = "only-amys"


def _all_methods() -> list[MethodDescriptor]:
    return [
        method
        for module in _FILES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def _texts(message: Descriptor, within: frozenset[str] = frozenset()) -> Iterator[str]:
    """The names of all fields that hold text, those of messages in it included."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield field.name
        elif field.message_type is not None and field.message_type.full_name not in within:
            yield from _texts(field.message_type, within | {message.full_name})


METHODS = [
    each for each in _all_methods() if any(name in each.input_type.fields_by_name for name in _IDS)
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def amys_run(chain: Chain) -> AsyncIterator[str]:
    """A finished run of Amy's, which asked her something."""
    async with connected(chain.state.edge, chain.token("amy")) as socket:
        finished = await socket.start("asks", "number", thread=THREAD)
        await socket.event(finished["run"], "input_requested")
        await socket.result("respond", run=finished["run"], request="q1", value=1)
        await socket.ending(finished["run"])
        yield finished["run"]


def test_the_calls_that_take_ids_are_found() -> None:
    names = {method.name for method in METHODS}
    assert {"CancelRun", "GetRun", "GetThread", "WatchRun", "Subscribe", "ResolveRun"} <= names
    for method in METHODS:
        contract = method.GetOptions().Extensions[contract_pb2.contract]
        assert contract.credential == contract_pb2.CREDENTIAL_USER, (
            f"{method.full_name} takes an id from the request, so it must take the user's token"
        )


@pytest.mark.parametrize("method", _all_methods(), ids=lambda m: m.name)
def test_no_id_has_a_name_that_is_not_looked_for(method: MethodDescriptor) -> None:
    texts = set(_texts(method.input_type))
    unknown = texts - _BESIDE_AN_ID - _NO_ID - set(_IDS)
    assert not unknown, f"say of {unknown} whether it is an id, and of whose"
    deep = texts & set(_IDS) - set(method.input_type.fields_by_name)
    assert not deep, f"{deep} is within another message, where the tests here do not put one"


@on_the_chains_loop
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
async def test_another_users_id_is_not_found(
    chain: Chain, amys_run: str, method: MethodDescriptor
) -> None:
    code = await _call(chain, method, _request(method, amys_run), chain.token("bob"))
    assert code is grpc.StatusCode.NOT_FOUND


@on_the_chains_loop
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
async def test_another_tenants_id_is_not_found(
    chain: Chain, amys_run: str, method: MethodDescriptor
) -> None:
    token = chain.token("amy", tenant="other")
    code = await _call(chain, method, _request(method, amys_run), token)
    assert code is grpc.StatusCode.NOT_FOUND


@on_the_chains_loop
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
async def test_ones_own_id_is_found(chain: Chain, amys_run: str, method: MethodDescriptor) -> None:
    code = await _call(chain, method, _request(method, amys_run), chain.token("amy"))
    assert code is not grpc.StatusCode.NOT_FOUND


def _request(method: MethodDescriptor, run: str) -> Message:
    values = {
        "run": run,
        "thread": THREAD,
        "replaces": run,
        "agent": "echo",
        "input_json": '{"text":"x"}',
        "request": "q1",
        "value_json": "1",
        "title": "t",
        "comment": "c",
    }
    known = {name: values[name] for name in method.input_type.fields_by_name if name in values}
    request: Message = message_factory.GetMessageClass(method.input_type)(**known)
    return request


async def _call(
    chain: Chain, method: MethodDescriptor, request: Message, token: str
) -> grpc.StatusCode:
    """The status of the call; OK as soon as a stream has said something."""
    package = method.containing_service.file.package
    layer = package.split(".")[1]
    metadata = (("authorization", f"Bearer {token}"),)
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer_type = message_factory.GetMessageClass(method.output_type)
    async with grpc.aio.insecure_channel(getattr(chain.state, layer)) as channel:
        encode, decode = type(request).SerializeToString, answer_type.FromString
        try:
            if method.server_streaming:
                stream = channel.unary_stream(path, encode, decode)(
                    request, metadata=metadata, timeout=_CALL_S
                )
                await stream.read()
                stream.cancel()
            else:
                await channel.unary_unary(path, encode, decode)(
                    request, metadata=metadata, timeout=_CALL_S
                )
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK
