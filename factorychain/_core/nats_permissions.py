"""Who may say what to NATS, and the embedded server's configuration.

Invariant: only the engine writes records, only the bridge writes the log, and nobody else has an
account; agents and emitter have none at all. A direct-get body names its subject, which permissions
do not see, so they separate services, never users.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorychain._core.ids import log_stream
from factorychain._core.nats_endpoint import inbox_prefix

ENGINE = "engine"
BRIDGE = "bridge"
ENGINE_BUCKETS = ("users", "queued", "waiting", "runs", "threads", "values", "engines")

# A batch of the log is at most 512 KiB; base64 in a leader's answer makes it a third more.
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024

# More than any disk has, so that the disk alone is the limit. Unless it is said, the server takes three
# quarters of what is free when it starts: one that is started while its disk is full stores nothing though
# there is room later, and in a cluster it takes part in nothing while it says that it is well
# (nats-server#4847).
MAX_FILE_STORE_BYTES = 2**50

_STREAM_READS = ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")
_STREAM_ADMIN = ("STREAM.CREATE", "STREAM.UPDATE")


@dataclass(frozen=True, slots=True)
class NatsUser:
    """An account of the server with what it may do."""

    name: str
    password: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def __repr__(self) -> str:
        return f"NatsUser({self.name!r})"


def engine_user(password: str, shards: int) -> NatsUser:
    """Reads and writes the records, reads the log."""
    buckets = [f"KV_{bucket}" for bucket in ENGINE_BUCKETS]
    publish = [
        *(f"$KV.{bucket}.>" for bucket in ENGINE_BUCKETS),
        *_calls(buckets, (*_STREAM_READS, *_STREAM_ADMIN)),
        *_calls(_log_streams(shards), _STREAM_READS),
    ]
    return NatsUser(ENGINE, password, tuple(publish), (f"{inbox_prefix(ENGINE)}.>",))


def bridge_user(password: str, shards: int) -> NatsUser:
    """Reads and writes the log, hears what is live, reads the run records."""
    publish = [
        "ev.>",
        *_calls(_log_streams(shards), (*_STREAM_READS, *_STREAM_ADMIN, "STREAM.PURGE")),
        *_calls(["KV_runs"], _STREAM_READS),
    ]
    return NatsUser(BRIDGE, password, tuple(publish), ("live.>", f"{inbox_prefix(BRIDGE)}.>"))


def render_server_config(
    *,
    port: int | None,
    store_dir: Path,
    users: Iterable[NatsUser],
    ports_dir: Path | None = None,
    server_name: str = "factorychain",
    sync_interval: str = "2m",
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> str:
    """The configuration of a server on loopback with JetStream, for `nats-server --config`.

    It holds the users' passwords: keep it in a file of mode 0600 or in an inherited descriptor.

    Args:
        port: None takes a free one, which the server writes to `ports_dir`.
        store_dir: where the streams live.
        users: nobody else may connect.
        ports_dir: where the server writes its addresses, as `nats-server_<pid>.ports`.
        server_name: must stay the same for a store.
        sync_interval: `always` makes every acknowledged write survive a power loss, at about twice
            the time a write takes; otherwise how often the server calls fsync.
        max_payload_bytes: the biggest message.
    """
    config: dict[str, object] = {
        "server_name": server_name,
        "listen": f"127.0.0.1:{-1 if port is None else port}",
        "max_payload": max_payload_bytes,
        "jetstream": {
            "store_dir": str(store_dir),
            "max_file_store": MAX_FILE_STORE_BYTES,
            "sync_interval": sync_interval,
        },
        "authorization": {"users": [_user(each) for each in users]},
    }
    if ports_dir is not None:
        config["ports_file_dir"] = str(ports_dir)
    # The server's format is a superset of JSON.
    return json.dumps(config, indent=2)


def _user(user: NatsUser) -> dict[str, object]:
    return {
        "user": user.name,
        "password": user.password,
        "permissions": {
            "publish": {"allow": list(user.publish)},
            "subscribe": {"allow": list(user.subscribe)},
        },
    }


def _log_streams(shards: int) -> list[str]:
    return [log_stream(shard) for shard in range(shards)]


def _calls(streams: Sequence[str], calls: Sequence[str]) -> list[str]:
    subjects = [f"$JS.API.{call}.{stream}" for stream in streams for call in calls]
    # The other form of a direct get carries the subject behind the stream's name.
    return subjects + [
        f"$JS.API.DIRECT.GET.{stream}.>" for stream in streams if "DIRECT.GET" in calls
    ]
