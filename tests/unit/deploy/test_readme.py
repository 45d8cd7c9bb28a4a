"""deploy/README.md: its overlay renders, its objects, files and variables are the real ones."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

from deploy import credentials
from tests.unit.deploy import kubernetes as k8s
from tests.unit.deploy.chain import BASE, DEPLOY, OTEL_VARIABLES, READERS

README = (DEPLOY / "README.md").read_text()


def blocks() -> list[str]:
    """The indented blocks, without the indent."""
    found = re.findall(r"(?:^    .*\n?|^\n(?=    ))+", README, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def test_the_overlay_renders_with_its_image_and_its_variable(tmp_path: Path) -> None:
    [overlay] = [block for block in blocks() if block.lstrip().startswith("# kustomization.yaml")]
    # Kustomize takes relative paths only.
    base = os.path.relpath(BASE, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("../base", base))
    done = subprocess.run(
        [k8s.kubectl(), "kustomize", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    bridge = k8s.container(k8s.runner(list(yaml.safe_load_all(done.stdout)), "bridge"))
    assert bridge["image"].startswith("registry.example/factorychain:")
    assert {"name": "FACTORYCHAIN_ALLOWED_ORIGINS", "value": "https://chat.example"} in bridge[
        "env"
    ]


def test_the_table_of_objects_is_what_is_made() -> None:
    rows = re.findall(r"\| `(factorychain-[\w-]+)` \| (\w+) \| `([\w.-]+)` \|", README)
    made = [(name, "Secret", *files) for name, files in credentials.SECRETS.items()]
    made += [(name, "ConfigMap", *files) for name, files in credentials.CONFIG_MAPS.items()]
    assert rows == made


def test_every_file_that_is_made_is_explained() -> None:
    explained = set(re.findall(r"`([\w.-]+)`", README.split("## Credentials")[1]))
    assert credentials.names() | {credentials.USER_KEY} <= explained


def test_every_variable_exists() -> None:
    assert set(re.findall(r"FACTORYCHAIN_[A-Z_]+", README)) <= READERS.keys()
    assert set(re.findall(r"OTEL_[A-Z_]+", README)) <= OTEL_VARIABLES


def test_every_file_of_the_folder_is_explained() -> None:
    table = README.split("## ")[0]
    hidden = {".gitignore", "README.md"}
    tracked = {each.name for each in DEPLOY.iterdir() if each.is_file()} - hidden
    assert [each for each in tracked if f"`{each}`" not in table] == []
