"""What credentials.py makes is what the services read; nothing is overwritten, nothing leaks."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy import credentials
from factorychain._core.jwks import JwksFile
from factorychain._core.keys import TxnKey, read_secret
from factorychain._core.settings import UserTokenSettings
from factorychain._core.user_tokens import UserVerifier
from tests.unit.deploy import kubernetes as k8s
from tests.unit.deploy.chain import DEPLOY, LAYERS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    credentials.make(tmp_path / "made")
    return tmp_path / "made"


def objects(folder: Path) -> dict[str, dict[str, Any]]:
    listed: Any = credentials.manifest(folder)
    return {each["metadata"]["name"]: each for each in listed["items"]}


def test_the_keys_are_those_that_the_services_read(folder: Path) -> None:
    key = TxnKey.from_file(folder / "txn-key.pem")
    assert JwksFile(folder / "txn-jwks.json").current().find(key.kid) is not None
    assert len(read_secret(folder / "user-secret")) >= 32


def test_the_public_documents_hold_no_private_key(folder: Path) -> None:
    for name in ("txn-jwks.json", "user-jwks.json"):
        [key] = json.loads((folder / name).read_text())["keys"]
        assert "d" not in key


def test_nats_and_the_services_have_the_same_passwords(folder: Path) -> None:
    lines = dict(
        line.split(": ") for line in (folder / "nats-passwords.conf").read_text().splitlines()
    )
    for user in ("engine", "bridge"):
        password = (folder / f"nats-{user}-password").read_text()
        assert json.loads(lines[f"{user.upper()}_PASSWORD"]) == password
    assert len(set(lines.values())) == 2


def test_others_on_the_machine_are_kept_out_by_the_folder(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    # The image's user is another than the one who made them.
    assert {name for name, mode in modes.items() if mode == 0o444} == credentials.names()
    assert modes[credentials.USER_KEY] == 0o600


def test_making_again_makes_only_what_is_missing(folder: Path) -> None:
    before = {each.name: each.read_text() for each in folder.iterdir()}
    assert credentials.make(folder) == []
    (folder / "txn-jwks.json").unlink()
    assert credentials.make(folder) == ["txn-jwks.json"]
    assert {each.name: each.read_text() for each in folder.iterdir()} == before


def test_the_objects_are_valid_and_hold_the_files(folder: Path) -> None:
    for name, each in objects(folder).items():
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
        decode = each["kind"] == "Secret"
        for file, text in each["data"].items():
            held = base64.b64decode(text).decode() if decode else text
            assert held == (folder / file).read_text(), name


def test_the_objects_are_those_that_the_base_mounts(folder: Path) -> None:
    rendered = k8s.rendered()
    generated = set(k8s.of_kind(rendered, "ConfigMap"))
    mounted = {
        (kind.lower(), name)
        for part in (*LAYERS, "nats")
        for kind, name, _ in k8s.mounts(k8s.runner(rendered, part))
    }
    made = {(each["kind"].lower(), name) for name, each in objects(folder).items()}
    assert made == {each for each in mounted if each[1] not in generated}


def test_the_private_user_key_and_the_shared_secret_reach_no_cluster(folder: Path) -> None:
    text = json.dumps(credentials.manifest(folder))
    for name in (credentials.USER_KEY, "user-secret"):
        content = (folder / name).read_bytes()
        assert base64.b64encode(content).decode() not in text


def test_compose_mounts_only_files_that_are_made() -> None:
    secrets = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["secrets"]
    files = {each["file"].removeprefix("./secrets/") for each in secrets.values()}
    assert files <= credentials.names()


async def test_a_token_is_accepted_by_whoever_has_the_public_keys(folder: Path) -> None:
    token = credentials.token(
        folder, user="ada", tenant="acme", audience=credentials.AUDIENCE, ttl_s=60
    )
    verifier = UserVerifier.from_settings(
        UserTokenSettings(user_jwks_file=folder / "user-jwks.json")
    )
    principal = (await verifier.verify(token)).principal
    assert (principal.tenant, principal.user) == ("acme", "ada")


def test_what_is_missing_is_said_with_how_to_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert credentials.main(["manifest", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"`credentials.py make {tmp_path}`" in said.err
