"""An agent that runs others, in a module that cannot be forked."""

from __future__ import annotations

import threading

from tests.integration.agents.team_samples import Lead

threading.Thread(target=threading.Event().wait, daemon=True).start()


class LeadThreaded(Lead):
    """In a process that is started for it."""

    name = "lead-threaded"
