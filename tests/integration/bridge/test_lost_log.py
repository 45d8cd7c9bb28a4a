"""A log that is deleted or purged below a bridge whose runs are under way, or that is idle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from factorychain_bridge.log_state import Loss
from tests.integration.bridge.replica import Collected, Replica, Sender
from tests.nats_fixture import NatsServer
from tests.storage_admin import StorageAdmin, storage_admin
from tests.unit.bridge.samples import (
    ANA,
    OTHER_RUN,
    THREAD,
    completed,
    context,
    started,
    thinking,
)
from tests.waiting import until, until_true

LOG = "EVENTS-0"


@pytest_asyncio.fixture
async def admin(nats_server: NatsServer) -> AsyncIterator[StorageAdmin]:
    async with storage_admin(nats_server, prefix="") as admin:
        yield admin


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def losses(lines: list[Any]) -> list[tuple[str, str]]:
    return [(each["log_level"], each["how"]) for each in lines if "streams" in each]


def states(lines: list[Any]) -> list[str]:
    return [each["after"] for each in lines if each["event"] == "integration changed"]


async def has_looked(replica: Replica) -> None:
    """The watch knows by now what is in the log."""
    shards = replica.recovery._watch._state._shards
    last = await replica.js.stream(LOG).last_seq()
    await until_true(lambda: LOG in shards and [e.seq for e in shards[LOG].events][-1:] == [last])


async def half_a_run(replica: Replica) -> tuple[Sender, Collected]:
    """A run that somebody watches."""
    sink = Collected()
    _ = await replica.hub.connect(ANA)
    _ = await replica.subscribe(sink)
    sender = await replica.open(context())
    sender.send((1, started()), (2, thinking("before")))
    await sender.durable(2)
    await sink.has(2)
    await has_looked(replica)
    return sender, sink


async def goes_on(replica: Replica, sender: Sender, sink: Collected) -> None:
    """The rest of the run, numbered anew, with one ending; and what follows it."""
    sender.send((3, thinking("after")), (4, completed()))
    await sender.ended()
    assert sender.receipts.refusal is None
    await sink.until(lambda seen: seen.texts == ["after", ""])
    assert sink.resets == ["EPOCH_CHANGED"]
    last = await replica.reader.last(ANA, THREAD)
    assert last is not None
    assert (last.seq, last.ended) == (2, True)
    following = await replica.open(
        context(run=OTHER_RUN, base=last.stream_seq, base_seq=2, base_epoch=last.epoch)
    )
    following.send((1, thinking("another")), (2, completed()))
    await following.ended()
    await sink.until(lambda seen: seen.texts == ["after", "", "another", ""])
    late = Collected()
    _ = await replica.subscribe(late)
    await late.until(lambda seen: seen.texts == sink.texts)


async def test_a_log_that_is_deleted_below_a_run_is_reported_and_the_run_goes_on_in_a_new_one(
    replica: Replica, admin: StorageAdmin, lines: list[Any]
) -> None:
    sender, sink = await half_a_run(replica)
    await admin.delete(LOG)
    await until_true(lambda: losses(lines))  # a stream that is being deleted may take what is sent
    await goes_on(replica, sender, sink)
    await until_true(lambda: states(lines)[-1:] == ["ACTIVE"])
    assert states(lines) == ["DEGRADED", "ACTIVE"]
    assert losses(lines) == [("critical", "deleted")]


async def test_a_deletion_that_an_append_runs_into_is_reported_without_waiting_for_a_look(
    nats_server: NatsServer, admin: StorageAdmin
) -> None:
    async with Replica.running(nats_server, look_s=3600) as replica:
        with capture_logs() as lines:
            sender = await replica.open(context())
            sender.send((1, started()))
            await sender.durable(1)
            await admin.delete(LOG)
            numbers = count(2)

            def says_more() -> bool:  # a stream that is being deleted may take some of it
                sender.send((next(numbers), thinking("more")))
                return bool(losses(lines))

            await until_true(says_more)
            sender.send((next(numbers), completed()))
            await sender.ended()
        assert losses(lines) == [("critical", "deleted")]
        assert states(lines) == ["DEGRADED", "ACTIVE"]


async def test_a_log_that_is_deleted_while_nothing_happens_is_made_again_by_one_and_reported_by_both(
    replica: Replica, other_replica: Replica, admin: StorageAdmin, lines: list[Any]
) -> None:
    await admin.delete(LOG)
    await until(lambda: admin.exists(LOG))
    await until_true(lambda: len(losses(lines)) == 2)
    await until_true(lambda: states(lines).count("ACTIVE") == 2)
    assert losses(lines) == [("critical", Loss.DELETED)] * 2
    for each in (replica, other_replica):
        assert each.integration.transitions == 4
        assert "deleted" not in each.integration.cause


async def test_a_log_that_is_purged_below_a_run_is_reported_and_the_run_goes_on(
    replica: Replica, admin: StorageAdmin, lines: list[Any]
) -> None:
    sender, sink = await half_a_run(replica)
    await admin.purge(LOG)
    await goes_on(replica, sender, sink)
    await until_true(lambda: losses(lines))
    await has_looked(replica)
    assert losses(lines) == [("critical", "purged")]
    assert states(lines) == []


async def test_a_log_that_is_purged_while_nothing_happens_is_reported_once(
    replica: Replica, admin: StorageAdmin, lines: list[Any]
) -> None:
    await half_a_run(replica)
    await admin.purge(LOG)
    await until_true(lambda: losses(lines))
    await admin.delete(LOG)  # and looks have gone on
    await until_true(lambda: len(losses(lines)) == 2)
    assert [how for _, how in losses(lines)] == ["purged", "deleted"]


async def test_a_run_that_is_opened_again_after_the_loss_goes_on_where_its_sender_stands(
    replica: Replica, admin: StorageAdmin, lines: list[Any]
) -> None:
    _, sink = await half_a_run(
        replica
    )  # the first of its thread: its token says nothing of another
    await admin.delete(LOG)
    await until_true(lambda: states(lines)[-1:] == ["ACTIVE"])
    again = await replica.open(context(), resumed=True)
    assert again.writer.durable_run_seq == 0
    await goes_on(replica, again, sink)
