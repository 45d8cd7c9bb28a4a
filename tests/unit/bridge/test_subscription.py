"""One sink on a thread: nothing is lost or delivered twice, however its beginning goes."""

from __future__ import annotations

import asyncio

import pytest

import factorychain_bridge.subscription
from factorychain._core.component import TaskSet
from factorychain_bridge.items import Reset
from tests.unit.bridge.samples import EPOCH
from tests.unit.bridge.test_feed import Sink, Watched


async def test_a_run_that_floods_before_the_reply_to_its_start_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factorychain_bridge.subscription, "_FIRST_EVENT_S", 0.0)
    tasks = TaskSet("subscription of a test")
    watched, sink = Watched(tasks), Sink()
    texts = [f"{index} " + "x" * 3000 for index in range(24)]

    def write(count: int) -> None:
        for text in texts[len(watched.history.log) :][:count]:
            watched.feed.on_live(watched.history.write(text))

    subscription = watched.feed.add()
    write(8)  # more than the buffer takes: has to be read
    watched.history.gate.clear()
    subscription.attach(sink, 0, EPOCH)
    await _settled()
    write(8)  # and again, while that is read
    watched.history.gate.set()
    await _settled()
    write(8)
    await sink.until(lambda: sink.texts[-1:] == texts[-1:])
    assert sink.texts == texts
    assert not [each for each in sink.items if isinstance(each, Reset)]
    await tasks.close()


async def _settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
