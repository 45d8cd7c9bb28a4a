from __future__ import annotations

import json
from pathlib import Path

from factorychain._core.nats_permissions import (
    MAX_FILE_STORE_BYTES,
    bridge_user,
    engine_user,
    render_server_config,
)

SHARDS = 2


def config(port: int | None = None, **more: str) -> dict[str, object]:
    users = [engine_user("e", SHARDS), bridge_user("b", SHARDS)]
    text = render_server_config(port=port, store_dir=Path("/data/js"), users=users, **more)  # type: ignore[arg-type]
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_the_server_listens_on_loopback_only() -> None:
    assert config(4222)["listen"] == "127.0.0.1:4222"
    assert config(None)["listen"] == "127.0.0.1:-1"


def test_how_often_it_syncs_can_be_chosen() -> None:
    assert config(sync_interval="always")["jetstream"] == {
        "store_dir": "/data/js",
        "max_file_store": MAX_FILE_STORE_BYTES,
        "sync_interval": "always",
    }


def test_the_engine_cannot_write_the_log_nor_the_bridge_records() -> None:
    assert not [
        each for each in engine_user("p", SHARDS).publish if each.startswith(("ev.", "live."))
    ]
    assert not [
        each for each in bridge_user("p", SHARDS).publish if each.startswith(("$KV.", "live."))
    ]


def test_nobody_may_use_a_whole_interface() -> None:
    for user in (engine_user("p", SHARDS), bridge_user("p", SHARDS)):
        for subject in user.publish:
            assert subject not in {">", "$JS.>", "$JS.API.>", "$KV.>"}
            assert "DELETE" not in subject


def test_each_hears_replies_in_an_inbox_of_its_own() -> None:
    assert engine_user("p", SHARDS).subscribe == ("_INBOX_engine.>",)
    assert bridge_user("p", SHARDS).subscribe == ("live.>", "_INBOX_bridge.>")


def test_every_shard_of_the_log_is_covered() -> None:
    for shard in range(SHARDS):
        assert f"$JS.API.STREAM.MSG.GET.EVENTS-{shard}" in engine_user("p", SHARDS).publish
        assert f"$JS.API.STREAM.CREATE.EVENTS-{shard}" in bridge_user("p", SHARDS).publish


def test_the_text_of_a_user_shows_no_password() -> None:
    assert "hunter2" not in repr(engine_user("hunter2", 1))
