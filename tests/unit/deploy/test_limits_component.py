"""The component with limits: the engine finds its file, which is a good one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

from factorychain._core.plans_file import parse_plans
from tests.unit.deploy import kubernetes as k8s
from tests.unit.deploy.chain import BASE, DEPLOY, ROOT

COMPONENT = DEPLOY / "k8s" / "components" / "limits"


def test_the_engine_finds_its_file_in_a_folder_that_changes_with_the_config_map(
    tmp_path: Path,
) -> None:
    here = tmp_path.resolve()
    overlay = {
        "resources": [os.path.relpath(BASE, here)],
        "components": [os.path.relpath(COMPONENT, here)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        [k8s.kubectl(), "kustomize", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    objects = list(yaml.safe_load_all(done.stdout))
    engine = k8s.runner(objects, "engine")
    environment = {each["name"]: each.get("value") for each in k8s.container(engine)["env"]}
    file = Path(environment["FACTORYCHAIN_LIMITS_FILE"])
    [mount] = [each for each in k8s.container(engine)["volumeMounts"] if each["name"] == "limits"]
    assert mount["mountPath"] == str(file.parent)
    assert "subPath" not in mount
    [volume] = [each for each in k8s.pod(engine)["volumes"] if each["name"] == "limits"]
    document = k8s.of_kind(objects, "ConfigMap")[volume["configMap"]["name"]]["data"][file.name]
    assert set(parse_plans(document.encode()).plans) == {"free", "pro"}


def test_the_file_in_the_documentation_is_a_good_one() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    [document] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    acme = parse_plans(document.encode()).tenants["acme"]
    assert (acme.plan, acme.users["ann@example.com"].terms.active_runs) == ("pro", 10)
