"""One run process, seen from the service: its socket, its end.

Invariant: it says something only to the one owner that it has, frame by frame; when it has ended, all
that it said has been heard, its descriptors are closed and its directory is being removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, Protocol

from factorychain._process.control import Place
from factorychain._process.outbox import Outbox
from factorychain._process.wire import BrokenFrame, Decoder, FromInstance, ToInstance, frame
from factorychain_agents.process.child import Child, Exit

_READ_BYTES: Final = 64 * 1024
_WORDS_MAX_BYTES: Final = 16 * 1024
# Frames other than events: a run's own pace is a few a second. Above this only the run itself waits.
_FREE_FRAMES: Final = 1000
_FRAMES_PER_S: Final = 500
_BYTES_AS_A_FRAME: Final = 256
_PAUSE_S: Final = 0.1


class Owner(Protocol):
    """Hears what a run process says."""

    def heard(self, kind: FromInstance, payload: bytes) -> None:
        """A frame.

        Raises:
            BrokenFrame: it cannot be meant.
        """
        ...

    def broke(self, why: str) -> None:
        """It wrote what is no frame, or closed its socket; nothing more is heard of it."""
        ...

    def ended(self, how: Exit, words: str) -> None:
        """It is reaped. `words` is what was written to its stderr past Python."""
        ...


class RunProcess(Protocol):
    """What a run needs of its process."""

    @property
    def pid(self) -> int: ...

    def belong_to(self, owner: Owner) -> None: ...

    def send(self, kind: ToInstance, payload: bytes = b"") -> None: ...

    async def flushed(self) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class InstanceProcess:
    """A run process."""

    def __init__(
        self,
        place: Place,
        child: Child,
        end: socket.socket,
        gone: Callable[[InstanceProcess], None],
    ) -> None:
        """`gone` is called when it is reaped and its owner has heard of it."""
        self.place = place
        self._gone = gone
        self._child = child
        self._loop = asyncio.get_running_loop()
        end.setblocking(False)
        self._end = end
        self._outbox = Outbox(end, self._loop)
        self._decoder = Decoder(FromInstance)
        self._owner: Owner | None = None
        self._told: list[Callable[[], None]] = []
        self._allowance = float(_FREE_FRAMES)
        self._counted_at = self._loop.time()
        self._reading = False
        self._open = True
        self._last_words = ""
        self._resume: asyncio.TimerHandle | None = None
        child.exited.add_done_callback(self._exited)

    @property
    def pid(self) -> int:
        return self._child.pid

    def belong_to(self, owner: Owner) -> None:
        """From now on this one hears what it says."""
        if self._child.exited.done():  # while it was on its way to this owner
            self._loop.call_soon(owner.ended, self._child.exited.result(), self._last_words)
            return
        self._owner = owner
        if self._open and not self._reading:
            self._read_on()

    def on_gone(self, told: Callable[[], None]) -> None:
        """Have someone told when it is reaped."""
        if self._child.exited.done():
            self._loop.call_soon(told)
        else:
            self._told.append(told)

    def send(self, kind: ToInstance, payload: bytes = b"") -> None:
        """Tell it something."""
        if self._open:
            self._outbox.post(frame(kind, payload))

    async def flushed(self) -> None:
        """Return when it has read what it was told, or cannot any more."""
        await self._outbox.flushed()

    def terminate(self) -> None:
        self._child.terminate()

    def kill(self) -> None:
        self._child.kill()

    async def wait_ended(self) -> None:
        """Return when it is reaped."""
        await asyncio.wait({self._child.exited})

    def _read_on(self) -> None:
        self._resume = None
        if self._open and not self._reading:
            self._reading = True
            self._loop.add_reader(self._end, self._readable)

    def _readable(self) -> None:
        data = self._received()
        if data is None:
            return
        if not data:
            self._deafen()
            self._tell_broken("it closed its socket")
            return
        self._take(data)

    def _received(self) -> bytes | None:
        """What has come; nothing at the end, None if there is nothing now."""
        try:
            return self._end.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def _take(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            for kind, payload in self._decoder.frames():
                self._allowance -= _cost(kind, payload)
                if self._owner is not None:
                    self._owner.heard(FromInstance(kind), payload)
        except BrokenFrame as error:
            self._deafen()
            self._tell_broken(str(error))
            return
        if self._allowance < 0:
            self._slow_down()

    def _slow_down(self) -> None:
        """It says more than anybody has to say: others come first."""
        now = self._loop.time()
        earned = (now - self._counted_at) * _FRAMES_PER_S
        self._counted_at = now
        self._allowance = min(self._allowance + earned, float(_FREE_FRAMES))
        if self._allowance < 0 and self._reading:
            self._stop_reading()
            self._resume = self._loop.call_later(_PAUSE_S, self._read_on)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._end)

    def _deafen(self) -> None:
        self._stop_reading()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        self._open = False

    def _tell_broken(self, why: str) -> None:
        if self._owner is not None:
            self._owner.broke(why)

    def _exited(self, exited: asyncio.Future[Exit]) -> None:
        self._stop_reading()
        while self._open and (data := self._received()):
            self._take(data)
        self._deafen()
        self._outbox.close()
        self._end.close()
        self._last_words = self._words()
        if self._owner is not None:
            self._owner.ended(exited.result(), self._last_words)
        self._owner = None
        self._gone(self)
        for each in self._told:
            each()

    def _words(self) -> str:
        """The last of what libraries, or a crashing interpreter, wrote to stderr."""
        words = self.place.words()
        if words is None:
            return ""
        with contextlib.suppress(OSError), words.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _WORDS_MAX_BYTES))
            return file.read(_WORDS_MAX_BYTES).decode("utf-8", "replace")
        return ""


def _cost(kind: int, payload: bytes) -> float:
    """In frames: events have their window, and what is asked has its own pace."""
    if kind == FromInstance.EVENT:
        return 0.0
    return 1.0 if kind == FromInstance.REQUEST else 1 + len(payload) / _BYTES_AS_A_FRAME
