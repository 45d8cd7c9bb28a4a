"""nats.conf: the permissions of `nats_permissions`, and a size for every message of the log."""

from __future__ import annotations

import re

import pytest

from factorychain._core.nats_permissions import (
    MAX_FILE_STORE_BYTES,
    MAX_PAYLOAD_BYTES,
    NatsUser,
    bridge_user,
    engine_user,
)
from factorychain._core.settings import BridgeSettings, EngineSettings
from tests.unit.deploy import kubernetes as k8s
from tests.unit.deploy.chain import DEPLOY, NATS_CONF

SHARDS = EngineSettings.model_fields["log_shards"].default


def without_comments() -> str:
    return re.sub(r"^\s*#.*$", "", NATS_CONF.read_text(), flags=re.MULTILINE)


def users() -> dict[str, dict[str, tuple[str, ...]]]:
    """Each user's password variable, and what may be published and subscribed."""
    found = {}
    for block in without_comments().split('user: "')[1:]:
        name = block.split('"')[0]
        lists = {
            what: tuple(re.findall(r'"([^"]+)"', inside))
            for what, inside in re.findall(r"(\w+): \{ allow: \[(.*?)\]", block, re.DOTALL)
        }
        password = re.findall(r"password: (\S+)", block)
        found[name] = {"password": tuple(password), **lists}
    return found


@pytest.mark.parametrize("user", [engine_user("", SHARDS), bridge_user("", SHARDS)])
def test_a_user_may_do_what_its_service_does_and_nothing_else(user: NatsUser) -> None:
    assert users()[user.name] == {
        "password": (f"${user.name.upper()}_PASSWORD",),
        "publish": user.publish,
        "subscribe": user.subscribe,
    }


def test_nobody_else_may_connect() -> None:
    assert set(users()) == {"engine", "bridge"}
    assert "no_auth_user" not in without_comments()


def test_the_services_log_in_by_these_names() -> None:
    objects = k8s.rendered()
    for part in ("engine", "bridge"):
        env = {
            each["name"]: each.get("value")
            for each in k8s.container(k8s.runner(objects, part))["env"]
        }
        assert env["FACTORYCHAIN_NATS_USER"] == part


def test_every_message_fits() -> None:
    assert f"max_payload: {MAX_PAYLOAD_BYTES}\n" in without_comments()
    largest = BridgeSettings.model_fields["batch_max_bytes"].default
    assert largest * 4 // 3 < MAX_PAYLOAD_BYTES


def test_the_disk_is_the_limit() -> None:
    assert f"max_file_store: {MAX_FILE_STORE_BYTES}\n" in without_comments()


def test_an_acknowledged_write_is_on_disk() -> None:
    assert "sync_interval: always\n" in without_comments()


def test_shards_are_those_of_the_services() -> None:
    # The variable would have to stand for engine and bridge, and the streams be listed here.
    files = [DEPLOY / "compose.yaml", *NATS_CONF.parent.glob("*.yaml")]
    assert [file.name for file in files if "FACTORYCHAIN_LOG_SHARDS" in file.read_text()] == []
