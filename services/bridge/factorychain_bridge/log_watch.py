"""Looks whether the log's streams are there and hold what they held, and reports what was lost.

Invariant: what NATS has not answered says nothing about the log; an outage is the integration's matter.
A loss is reported once by each bridge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from factorychain._core.ids import log_stream
from factorychain._core.jetstream import JetStream, Stream
from factorychain._core.log_reader import event_subjects, try_subject
from factorychain._core.logging import get_logger
from factorychain._core.stored import StreamContents, StreamMissing
from factorychain._core.telemetry import counter
from factorychain_bridge.log_state import LogState, Loss

log = get_logger(__name__)
_losses = counter(
    "factorychain.bridge.log_losses", "Streams of the log that were deleted or purged"
)

_LOST: Final = (
    "what threads held; runs under way go on, in threads that are numbered anew, and their users see"
    " a reset"
)


class LogWatch:
    """The looks at the log of one bridge."""

    def __init__(
        self,
        js: JetStream,
        shards: int,
        *,
        max_age_s: float,
        max_bytes: int = -1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_bytes` of one shard; -1: any."""
        self._streams = [js.stream(log_stream(shard)) for shard in range(shards)]
        self._state = LogState(max_age_s, max_bytes)
        self._clock = clock

    async def look(self) -> bool:
        """Look at every stream; whether one was deleted that was there before.

        Raises:
            NatsUnavailable: no answer.
            StorageRefused: the server refuses to answer.
        """
        lost: dict[Loss, list[str]] = {Loss.DELETED: [], Loss.PURGED: []}
        try:
            for shard, stream in enumerate(self._streams):
                loss = await self._look_at(shard, stream)
                if loss is not None:
                    lost[loss].append(stream.name)
        finally:  # what was found is not found again
            for how, streams in lost.items():
                _report(how, streams)
        return bool(lost[Loss.DELETED])

    async def _look_at(self, shard: int, stream: Stream) -> Loss | None:
        try:
            contents = await stream.contents()
            ends_in_event = self._state.is_news(stream.name, contents) and (
                await self._ends_in_event(shard, stream, contents)
            )
        except StreamMissing:
            return self._state.missing(stream.name)
        return self._state.seen(stream.name, contents, self._clock(), ends_in_event=ends_in_event)

    async def _ends_in_event(self, shard: int, stream: Stream, contents: StreamContents) -> bool:
        """What is stored only to try whether it is goes by itself, and must not be taken for purged."""
        if self._state.knows(stream.name):
            return not await stream.subjects(try_subject(shard))
        # It may have gone already, so that only the last event itself tells.
        last = await stream.last_message(event_subjects(shard))
        return last is not None and last.seq == contents.last_seq


def _report(how: Loss, streams: list[str]) -> None:
    if not streams:
        return
    _losses.add(len(streams), {"how": how.value})
    log.critical(
        "the contents of the log are lost",
        streams=streams,
        how=how.value,
        lost=_LOST,
        business_impact="what users were shown before cannot be read again",
    )
