"""Views of runs and threads: each user sees their own, and what the log says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from factorychain._core.contracts import CARRY_CALLS, Credential, contract_of
from factorychain._core.credentials import TXN_HEADER
from factorychain._core.ids import Principal
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import (
    FactoryChainError,
    InvalidField,
    NotImplementedYet,
    RunNotFound,
    ThreadNotFound,
    TokenInvalid,
)
from factorychain.types.v1.run_pb2 import RunState
from factorychain_engine.records.stored_run import StoredRun
from tests.engine_harness import BOB, Chain, Engine
from tests.engine_peers import completed
from tests.token_samples import ADA
from tests.waiting import until_not

SERVICE = pb.DESCRIPTOR.services_by_name["EngineService"]


def ids_of(method: MethodDescriptor) -> list[FieldDescriptor]:
    """The request's fields that name a run or a thread that has to be there."""
    return [
        field
        for field in method.input_type.fields
        if field.name in {"run", "thread", "replaces"}
        and not (method.name in {"StartRun", "ListRuns"} and field.name == "thread")
    ]


WITH_IDS = [method for method in SERVICE.methods if ids_of(method)]


@pytest.mark.parametrize("method", WITH_IDS, ids=lambda method: method.name)
@pytest.mark.parametrize("is_over", [False, True])
async def test_what_is_someone_elses_is_not_found(
    engine: Engine, chain: Chain, method: MethodDescriptor, is_over: bool
) -> None:
    theirs = await engine.start_run(ADA, thread="t1")
    if is_over:
        await chain.agents.end(theirs.run)
        await until_not(engine.active)
    await engine.start_run(BOB, thread="t2")
    values = {"run": theirs.run, "thread": "t1", "replaces": theirs.run}
    fields = {field.name: values[field.name] for field in ids_of(method)}
    if method.name == "StartRun":
        fields |= {"input_json": '{"text":"?"}', "thread": "t1"}
    request = getattr(pb, method.input_type.name)(**fields)
    with pytest.raises(FactoryChainError) as refused:
        await answered(engine, method, request, BOB)
    assert refused.value.code == "NOT_FOUND", refused.value
    # It is there for its owner, so the answer is about whose it is.
    if method.name not in {"StartRun", "CancelRun"}:
        try:
            async with asyncio.timeout(0.5):
                await answered(engine, method, request, ADA)
        except (NotImplementedYet, InvalidField, TimeoutError):
            pass


async def answered(engine: Engine, method: MethodDescriptor, request: Any, user: Any) -> list[Any]:
    call = getattr(engine.stub, method.name)(request, metadata=engine.as_user(user))
    if method.server_streaming:
        return [each async for each in call]
    return [await call]


async def test_lists_hold_only_the_callers_own(chain: Chain, engine: Engine) -> None:
    theirs = await engine.start_run(ADA, thread="t1")
    own = await engine.start_run(BOB, thread="t1", agent="quick")
    runs = await engine.stub.ListRuns(pb.ListRunsRequest(thread="t1"), metadata=engine.as_user(BOB))
    assert [each.run for each in runs.runs] == [own.run]
    thread = await engine.stub.GetThread(
        pb.GetThreadRequest(thread="t1"), metadata=engine.as_user(BOB)
    )
    assert [each.run for each in thread.runs] == [own.run]
    usage = await engine.stub.GetUsage(pb.GetUsageRequest(), metadata=engine.as_user(BOB))
    assert usage.active_runs <= 1
    assert theirs.run not in str(runs) + str(thread)


async def test_ids_of_nothing_are_not_found(engine: Engine) -> None:
    with pytest.raises(RunNotFound):
        await engine.run("r" + "a" * 24)
    with pytest.raises(ThreadNotFound):
        await engine.stub.GetThread(pb.GetThreadRequest(thread="x"), metadata=engine.as_user(ADA))
    with pytest.raises(RunNotFound):
        await engine.run("*")
    with pytest.raises(InvalidField):
        await engine.run("")


async def test_a_thread_that_has_just_begun_is_there_at_once(engine: Engine) -> None:
    started = await engine.start_run(thread="t1")
    thread = await engine.stub.GetThread(
        pb.GetThreadRequest(thread="t1"), metadata=engine.as_user(ADA)
    )
    assert thread.thread.active_run == started.run
    assert [each.run for each in thread.runs] == [started.run]
    listed = await engine.stub.ListThreads(pb.ListThreadsRequest(), metadata=engine.as_user(ADA))
    assert [each.active_run for each in listed.threads] == [started.run]


async def test_a_thread_whose_first_run_has_ended_is_there_before_its_record_is_written(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.server.records, "touch_thread", _never)
    started = await engine.start_run(thread="t1", agent="quick")
    await until_not(engine.active)
    found = await engine.stub.GetThread(
        pb.GetThreadRequest(thread="t1"), metadata=engine.as_user(ADA)
    )
    assert [each.run for each in found.runs] == [started.run]
    assert found.thread.active_run == ""
    assert found.thread.HasField("created_at")
    with pytest.raises(ThreadNotFound):
        await engine.stub.GetThread(pb.GetThreadRequest(thread="t1"), metadata=engine.as_user(BOB))


async def test_a_run_that_ends_while_its_thread_is_read_is_shown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = engine.server.records
    runs_of = records.runs_of

    async def before_it_ended(
        principal: Principal, thread: str | None = None
    ) -> AsyncIterator[StoredRun]:
        found = [each async for each in runs_of(principal, thread)]
        await engine.cancel(started.run)
        await until_not(engine.active)
        for each in found:
            yield each

    monkeypatch.setattr(records, "create_run", _never)
    monkeypatch.setattr(records, "runs_of", before_it_ended)
    started = await engine.start_run(thread="t1")
    found = await engine.stub.GetThread(
        pb.GetThreadRequest(thread="t1"), metadata=engine.as_user(ADA)
    )
    assert [each.run for each in found.runs] == [started.run]


async def _never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_threads_come_newest_first_in_pages(engine: Engine) -> None:
    for number in range(5):
        await engine.start_run(thread=f"t{number}", agent="quick")
        await until_not(engine.active)
    found: list[str] = []
    token = ""
    while True:
        page = await engine.stub.ListThreads(
            pb.ListThreadsRequest(page_size=2, page_token=token), metadata=engine.as_user(ADA)
        )
        found += [each.thread for each in page.threads]
        token = page.next_page_token
        if not token:
            break
        with pytest.raises(InvalidField, match="page_token"):
            await engine.stub.ListThreads(
                pb.ListThreadsRequest(page_token=token), metadata=engine.as_user(BOB)
            )
    assert found == ["t4", "t3", "t2", "t1", "t0"]


async def test_runs_come_newest_first_in_pages(chain: Chain, engine: Engine) -> None:
    started = []
    for _ in range(3):
        started.append((await engine.start_run(thread="t1", agent="quick")).run)
        await until_not(engine.active)
    started.append((await engine.start_run(thread="t1")).run)
    metadata = engine.as_user(ADA)
    first = await engine.stub.ListRuns(pb.ListRunsRequest(page_size=3), metadata=metadata)
    rest = await engine.stub.ListRuns(
        pb.ListRunsRequest(page_size=3, page_token=first.next_page_token), metadata=metadata
    )
    assert [each.run for each in [*first.runs, *rest.runs]] == started[::-1]
    assert not rest.next_page_token
    active = await engine.stub.ListRuns(pb.ListRunsRequest(active_only=True), metadata=metadata)
    assert [each.run for each in active.runs] == started[-1:]


async def test_watching_shows_the_run_until_it_has_ended(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    started = await engine.start_run(thread="t1")
    calls = [
        each.stub.WatchRun(pb.WatchRunRequest(run=started.run), metadata=each.as_user(ADA))
        for each in (engine, other)
    ]
    watches: list[AsyncIterator[Any]] = [aiter(call) for call in calls]
    for watch in watches:
        assert (await anext(watch)).run.state == RunState.RUN_STATE_RUNNING
    await chain.agents.end(started.run)
    for watch in watches:
        states = [each.run.state async for each in watch]
        assert states[-1] == RunState.RUN_STATE_COMPLETED


async def test_history_is_what_came_before_without_what_was_replaced(
    chain: Chain, engine: Engine
) -> None:
    async def said(text: str, **fields: Any) -> str:
        started = await engine.start_run(
            thread="t1", input_json=orjson.dumps({"text": text}).decode(), **fields
        )
        await chain.agents.end(started.run, completed(f'"{text}!"'))
        await until_not(engine.active)
        return started.run

    await said("one")
    two = await said("two")
    await said("three")
    await engine.start_run(ADA, thread="other", agent="quick")
    last = await engine.start_run(thread="t1", replaces=two, input_json='{"text":"TWO"}')
    token = chain.agents.runs[last.run].ctx.token
    answer = await engine.stub.GetHistory(pb.GetHistoryRequest(), metadata=((TXN_HEADER, token),))
    assert [each.output_json for each in answer.runs] == ['"one!"']
    await chain.agents.end(last.run, completed('"TWO!"'))
    thread = await engine.stub.GetThread(
        pb.GetThreadRequest(thread="t1"), metadata=engine.as_user(ADA)
    )
    assert [each.output_json for each in thread.runs] == ['"one!"', '"TWO!"']


async def test_a_users_token_reads_no_history(engine: Engine) -> None:
    with pytest.raises(TokenInvalid):
        await engine.stub.GetHistory(pb.GetHistoryRequest(), metadata=engine.as_user(ADA))


async def test_the_default_agent_is_listed_first_and_the_unavailable_with_what_it_misses(
    chain: Chain,
) -> None:
    engine = await chain.engine(default_agent="quick")
    listed = await engine.stub.ListAgents(pb.ListAgentsRequest(), metadata=engine.as_user(ADA))
    assert listed.agents[0].name == "quick"
    assert [each.name for each in listed.agents if each.is_default] == ["quick"]
    broken = next(each for each in listed.agents if each.name == "broken")
    assert list(broken.missing) == ["Database"]


async def test_keys_are_public_only(engine: Engine) -> None:
    answer = await engine.stub.GetKeys(pb.GetKeysRequest())
    keys = orjson.loads(answer.jwks_json)["keys"]
    assert [each["kid"] for each in keys] == [engine.server.signer.key.kid]
    assert set(keys[0]) == {"kty", "crv", "x", "kid", "use", "alg"}


async def test_every_call_but_the_keys_needs_a_credential(engine: Engine) -> None:
    for method in SERVICE.methods:
        contract = contract_of(method)
        if contract.credential is Credential.NONE or method.name == CARRY_CALLS:
            continue  # what is carried is a method of its own, and is called so here if it may be
        call = getattr(engine.stub, method.name)(getattr(pb, method.input_type.name)())
        with pytest.raises(TokenInvalid) as refused:
            await (anext(aiter(call)) if method.server_streaming else call)
        assert isinstance(refused.value.__cause__, grpc.aio.AioRpcError)
