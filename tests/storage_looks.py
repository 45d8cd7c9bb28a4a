"""When an engine has looked at its buckets, and what it has said of them."""

from __future__ import annotations

from typing import Any

from tests.engine_harness import Engine
from tests.waiting import until_true


async def has_looked(engine: Engine) -> None:
    """The watch knows by now what is in the buckets."""
    state = engine.server.storage.state
    before = dict(state._contents)

    def again() -> bool:
        now = state._contents
        return len(now) == 7 and all(now[each] is not before.get(each) for each in now)

    await until_true(again)


def said(lines: list[Any], event: str, bucket: str) -> list[str]:
    return [
        str(each.get("trouble", each.get("how", "")))
        for each in lines
        if each["event"] == event and each["bucket"] == bucket
    ]
