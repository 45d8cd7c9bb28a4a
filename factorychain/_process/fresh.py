"""What a forked process must not share with its siblings: signals, random numbers, names, loops.

Invariant: nothing random that a run draws is drawn by another one as well.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
import tempfile
from typing import Final

_OURS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM, signal.SIGXCPU)


def forget_parent() -> None:
    """Undo what the process has from the one that it was forked from."""
    for number in _OURS:
        signal.signal(number, signal.SIG_DFL)
    # ^C belongs to who sits at the terminal; the service decides what becomes of runs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
    random.seed()
    _seed_numpy()
    tempfile.tempdir = None
    gc.enable()


def _seed_numpy() -> None:
    numpy_random = sys.modules.get("numpy.random")
    seed = getattr(numpy_random, "seed", None)
    if callable(seed):
        seed(int.from_bytes(os.urandom(4), "big"))
