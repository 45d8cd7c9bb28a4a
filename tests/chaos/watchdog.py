"""Ends a run of chaos that hangs, whatever hangs, and says what does.

Invariant: the process ends within the time that its phases have; it looks from a thread of its own, so
also if the loop itself hangs.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final

STATUS: Final = 3
_SHOWN: Final = 40


class Watchdog:
    """Bites when a phase takes too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience_s: float = 10.0) -> None:
        """`patience_s`: how long the loop may take to say what hangs."""
        self._loop = loop
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._phase = ("", threading.TIMEOUT_MAX)
        self._number = 0
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def phase(self, name: str, limit_s: float) -> None:
        """The next phase begins, the one before is over."""
        with self._changed:
            self._phase = (name, limit_s)
            self._number += 1
            self._changed.notify()

    def rest(self) -> None:
        """Nothing is watched any more."""
        self.phase("", threading.TIMEOUT_MAX)

    def _watch(self) -> None:
        while True:
            with self._changed:
                number, (name, limit_s) = self._number, self._phase
                if self._changed.wait_for(lambda known=number: self._number != known, limit_s):  # type: ignore[misc]
                    continue
            self._bite(name, limit_s)

    def _bite(self, name: str, limit_s: float) -> None:
        print(f"HANGS: {name} took longer than {limit_s:.0f} s", file=sys.stderr, flush=True)
        shown = threading.Event()

        def show() -> None:
            show_tasks(asyncio.all_tasks(self._loop))
            shown.set()

        self._loop.call_soon_threadsafe(show)
        if not shown.wait(self._patience_s):
            print("the loop itself hangs:", file=sys.stderr)
        sys.stderr.flush()
        faulthandler.dump_traceback(sys.stderr)
        # The chain ends by itself when nobody holds its control socket any more.
        os._exit(STATUS)


def show_tasks(tasks: set[asyncio.Task[Any]]) -> None:
    """Where tasks wait, equal ones once."""
    places = Counter(waits_at(each) for each in tasks)
    for place, count in places.most_common(_SHOWN):
        print(f"{count} × {place}", file=sys.stderr)
    sys.stderr.flush()


def waits_at(task: asyncio.Task[Any]) -> str:
    """From the outermost coroutine to the innermost."""
    frames: list[str] = []
    awaited: object = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            name = Path(frame.f_code.co_filename).name
            frames.append(f"{frame.f_code.co_name} ({name}:{frame.f_lineno})")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return " → ".join(frames) or repr(task)
