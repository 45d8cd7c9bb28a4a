"""Positions are told once they can be, whatever went wrong before."""

from __future__ import annotations

from typing import Any

from factorychain._core.ids import Principal
from factorychain._core.stored import StorageRefused
from factorychain.types.v1.event_pb2 import Event
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.queue.announcing import Announcer
from factorychain_engine.records.users_store import Versioned
from tests.waiting import until_true

ADA = Principal("acme", "ada")
QUEUED = QueuedRun(
    run="r1",
    thread="t1",
    agent="researcher",
    request_hash="0" * 32,
    kept="k1",
    queued_at_s=1.0,
    base=0,
    base_seq=0,
    base_epoch=1,
)


class Around:
    """All that an announcer needs: users with one that waits, an empty log, and a speaker that says everything."""

    def __init__(self) -> None:
        self.wrong = 0
        """So many questions about the user go wrong."""
        self.positions: list[int] = []

    async def read(self, _: Principal) -> Versioned:
        if self.wrong:
            self.wrong -= 1
            raise StorageRefused("read", 403, "not permitted")
        return Versioned(UserRecord("acme", "ada", queue=(QUEUED,), queue_owner="e1"), 1)

    async def last(self, *_: str) -> None:
        """The log is empty."""

    async def queued(self, *_: str) -> None:
        """No input is kept."""

    async def say(self, _: Principal, __: ActiveRun, event: Event) -> bool:
        self.positions.append(event.run_queued.position)
        return True


async def test_positions_are_told_after_whatever_goes_wrong() -> None:
    around: Any = Around()
    announcer = Announcer(speaker=around, users=around, records=around, log=around, pause_s=0.0)
    around.wrong = 2
    announcer.announce(ADA, ["r1"])
    await until_true(lambda: around.positions == [1])
    assert announcer.healthy
    await announcer.stop()
