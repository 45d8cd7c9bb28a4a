"""Earlier runs, from the records that the host hands over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from factorychain.errors import InvalidField
from factorychain.history import PastRun, RunState
from factorychain.input import Input, Json, parse_input
from factorychain.types.v1.run_pb2 import Run
from factorychain.types.v1.run_pb2 import RunState as RunStateValue


def past_run(record: bytes) -> PastRun:
    """One record of the history."""
    run = Run.FromString(record)
    return PastRun(
        run=run.run,
        agent=run.agent,
        state=_state(run.state),
        input=_input(run.input_json),
        output=_json(run.output_json),
        error=run.error.reason,
        metadata=cast("dict[str, Json]", _json(run.metadata_json) or {}),
        created_at=_moment(run.created_at) if run.HasField("created_at") else None,
        ended_at=_moment(run.ended_at) if run.HasField("ended_at") else None,
    )


def _state(value: RunStateValue.ValueType) -> RunState:
    return cast("RunState", RunStateValue.Name(value).removeprefix("RUN_STATE_").lower())


def _input(text: str) -> Input:
    try:
        return parse_input(text)
    except InvalidField:  # a record of another version: better a gap than no history
        return Input()


def _json(text: str) -> Json:
    if not text:
        return None
    found: Json = orjson.loads(text)
    return found


def _moment(at: Timestamp) -> datetime:
    return datetime.fromtimestamp(at.seconds + at.nanos / 1e9, UTC)
