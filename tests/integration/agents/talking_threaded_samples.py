"""The same agent in a module that cannot be forked."""

from __future__ import annotations

import threading

from tests.integration.agents.talking_samples import Talks

threading.Thread(target=threading.Event().wait, daemon=True).start()


class TalksThreaded(Talks):
    """In a process that is started for it."""

    name = "talks-threaded"
