"""Bytes of what each layer's factory makes for one run, in one process, over many of them.

The factories are those of real servers that were made and not started, so nothing is on its way to
anybody. What is counted is what each makes beside the run's `UserExecutionContext`: what arrived with the
start, and what all runs share, is not the factory's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.keys import TxnKey, jwks_document, new_secret
from factorychain._core.link import Refusal
from factorychain._core.settings import BridgeSettings, EmitterSettings, EngineSettings
from factorychain._core.telemetry import span
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_agents.factory import AgentInstanceFactory, InstanceLimits, StartRequest
from factorychain_agents.live_run import LiveRun
from factorychain_agents.registry import AgentRegistry
from factorychain_agents.run_models import NoGateway
from factorychain_agents.task_executor import TaskExecutor
from factorychain_bridge.server import BridgeServer
from factorychain_emitter.server import EmitterServer
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.places.factory import Place
from factorychain_engine.server import EngineServer

_RUNS = 1000
_WARM_UP = 10
_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

_Make = Callable[[UserExecutionContext], object]


async def factory_bytes() -> dict[str, float]:
    """Bytes for each run, by what makes them."""
    with tempfile.TemporaryDirectory(prefix="factorychain-bench-") as folder:
        keys = _Keys(Path(folder))
        makers = {
            "engine's Place and SupervisedRun": _engine(keys),
            "agents' RunSpec and LiveRun": _agents(),
            "emitter's UserWebSocketEmitter and LinkRun": _emitter(keys),
            "bridge's route and RunWriter": _bridge(keys),
        }
        found = {name: _bytes_each(make) for name, make in makers.items()}
        await asyncio.sleep(0)  # the tasks that were cancelled before they began
        return found


def context_bytes() -> float:
    """Bytes of one `UserExecutionContext` with everything only it refers to."""
    with _traced() as size:
        kept = [_context(index) for index in range(_RUNS)]
        return size() / len(kept)


def _bytes_each(make: _Make) -> float:
    contexts = [_context(index) for index in range(_RUNS + _WARM_UP)]
    kept = [make(each) for each in contexts[:_WARM_UP]]
    with _traced() as size:
        kept += [make(each) for each in contexts[_WARM_UP:]]
        found = size() / _RUNS
    for each in kept:
        if isinstance(each, _Closes):
            each.close()
    return found


@contextlib.contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """How many bytes more there are than at the beginning."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


# --- what each layer makes ---------------------------------------------------------------------


def _engine(keys: _Keys) -> _Make:
    server = EngineServer(
        EngineSettings(txn_key_file=keys.key, txn_jwks_file=keys.jwks, user_secret_file=keys.secret)
    )

    def make(ctx: UserExecutionContext) -> object:
        entry = ActiveRun(
            run=ctx.run,
            thread=ctx.thread,
            agent=ctx.agent,
            request_hash=f"{hash(ctx.run):064x}",
            owner=server.engine_id,
            admitted_at_s=time.time(),
            deadline_s=ctx.deadline_s,
            base=ctx.base,
            base_seq=ctx.base_seq,
            base_epoch=ctx.base_epoch,
        )
        return Place(ctx.principal, entry), server._supervised(ctx.principal, entry, ctx)

    return make


def _agents() -> _Make:
    registry = AgentRegistry([])
    limits = InstanceLimits(output_max_bytes=262_144, beat_every_s=5)
    factory = AgentInstanceFactory(registry, TaskExecutor(registry), limits)
    request, models = StartRequest('{"text":"hi"}'), NoGateway()

    def make(ctx: UserExecutionContext) -> object:
        running = span("invoke_agent", parent=_TRACE)
        spec = factory.spec(ctx, request, running.traceparent, models)
        return LiveRun(ctx, spec, running, 10.0, models, 30.0)

    return make


def _emitter(keys: _Keys) -> _Make:
    factory = EmitterServer(EmitterSettings(txn_jwks_file=keys.jwks)).factory
    return lambda ctx: factory.open(ctx, RunOpen(trace=_TRACE), _Receipts())


def _bridge(keys: _Keys) -> _Make:
    settings = BridgeSettings(txn_jwks_file=keys.jwks, user_secret_file=keys.secret)
    bridge = BridgeServer(settings).bridge
    return lambda ctx: bridge.open(ctx, RunOpen(trace=_TRACE), _Receipts())


class _Keys:
    """What the servers read when they are made."""

    def __init__(self, folder: Path) -> None:
        self.key, self.jwks, self.secret = (folder / each for each in ("key", "jwks", "secret"))
        key = TxnKey.generate()
        self.key.write_bytes(key.to_pem())
        self.jwks.write_text(jwks_document([key]))
        self.secret.write_text(new_secret())


class _Receipts:
    """Where the layer before would be told; nobody is."""

    __slots__ = ()

    def acknowledged(self, durable_run_seq: int, ended: bool = False) -> None: ...

    def rejected(self, run_seq: int, reason: str, message: str) -> None: ...

    def refused(self, refusal: Refusal) -> None: ...


@runtime_checkable
class _Closes(Protocol):
    def close(self) -> None: ...


def _context(index: int) -> UserExecutionContext:
    now = time.time()
    return UserExecutionContext(
        principal=Principal("tenant", f"user-{index}"),
        thread=f"thread-{index}",
        run=f"r{index:024d}",
        agent="researcher",
        attempt=1,
        scope=Scope.RUN,
        base=index,
        base_seq=index,
        base_epoch=int(now * 1000),
        deadline_s=now + 300,
        expires_at_s=now + 360,
        limits={"max_runs": 2},
        token="",
    )
