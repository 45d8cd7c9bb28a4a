"""A host in memory: keeps what a run says, and has what a thread and its user would.

Invariant: it answers as a chain does, so that an agent that passes with it passes there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._instance.host import check_value
from factorychain._instance.memory_values import MemoryValues
from factorychain._instance.scripted_user import Answers, ScriptedUser
from factorychain._instance.spec import SpanRecord
from factorychain._instance.values import dumps
from factorychain.history import PastRun
from factorychain.input import encode_input
from factorychain.types.v1.run_pb2 import Run, RunState


class Recorder:
    """`RunHost` that keeps everything."""

    def __init__(
        self,
        history: Sequence[PastRun] = (),
        kept: MemoryValues | None = None,
        answers: Answers = (),
    ) -> None:
        self.events: list[bytes] = []
        self._user = ScriptedUser(answers, self.events.append)
        self.spans: list[SpanRecord] = []
        self._history = [_record(each) for each in history]
        self._kept = kept or MemoryValues()

    async def emit(self, kind: int, event: bytes) -> None:
        del kind
        self.events.append(event)

    def beat(self) -> None:
        return None

    def created(self) -> None:
        return None

    def span(self, record: SpanRecord) -> None:
        self.spans.append(record)

    async def ask(self, event: bytes, timeout_s: float) -> bytes:
        await asyncio.sleep(0)
        return self._user.ask(event, timeout_s)

    async def history(self, limit: int) -> Sequence[bytes]:
        return self._history[-limit:]

    async def load(self, name: str) -> tuple[bytes | None, int]:
        check_value(name)
        return self._kept.load(name)

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        check_value(name, value)
        return self._kept.store(name, value, revision)


def _record(past: PastRun) -> bytes:
    run = Run(
        run=past.run,
        agent=past.agent,
        state=RunState.Value(f"RUN_STATE_{past.state.upper()}"),
        input_json=encode_input(past.input),
        output_json="" if past.output is None else dumps(past.output),
        metadata_json=dumps(past.metadata or {}),
    )
    run.error.reason = past.error
    for field_name, at in (("created_at", past.created_at), ("ended_at", past.ended_at)):
        if at is not None:
            moment = Timestamp()
            moment.FromDatetime(at)
            getattr(run, field_name).CopyFrom(moment)
    return run.SerializeToString()
