"""The kustomize base as `kubectl kustomize` renders it."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.unit.deploy.chain import BASE, Workload

Object = dict[str, Any]
RUNNERS = ("Deployment", "StatefulSet")


def kubectl() -> str:
    """The kubectl of the locked requirements, else one on PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise FileNotFoundError(
            "kubectl is not installed: `make setup` installs it from requirements/dev.txt; "
            "on Debian `apt-get install kubernetes-client` brings one, too"
        )
    return found


@cache
def _render() -> str:
    done = subprocess.run(
        [kubectl(), "kustomize", str(BASE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"kubectl kustomize {BASE}: {done.stderr}"
    # A deprecated field still renders, with a warning here.
    assert done.stderr == ""
    return done.stdout


@cache
def _parsed() -> Sequence[Object]:
    return list(yaml.safe_load_all(_render()))


def rendered() -> list[Object]:
    """Every object of the base; the caller's own, to change at will."""
    return copy.deepcopy(list(_parsed()))


def of_kind(objects: Sequence[Object], *kinds: str) -> dict[str, Object]:
    """Objects by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def component(labelled: Object) -> str:
    return str(labelled["metadata"]["labels"]["app.kubernetes.io/component"])


def runner(objects: Sequence[Object], name: str) -> Object:
    """The Deployment or StatefulSet of a layer."""
    found = [each for each in objects if each["kind"] in RUNNERS and component(each) == name]
    assert len(found) == 1, f"{name} has {len(found)} Deployments or StatefulSets"
    return found[0]


def pod(of: Object) -> Object:
    spec: Object = of["spec"]["template"]["spec"]
    return spec


def container(of: Object) -> Object:
    containers = pod(of)["containers"]
    assert len(containers) == 1
    only: Object = containers[0]
    return only


def mounts(of: Object) -> list[tuple[str, str, str]]:
    """(kind, name, path) of each Secret and ConfigMap, through plain and projected volumes."""
    paths = {each["name"]: each["mountPath"] for each in container(of)["volumeMounts"]}
    found = []
    for volume in pod(of)["volumes"]:
        for source in volume.get("projected", {}).get("sources", [volume]):
            for kind in ("secret", "configMap"):
                if kind in source:
                    name = source[kind].get("name") or source[kind]["secretName"]
                    found.append((kind, name, paths[volume["name"]]))
    return found


def workloads(objects: Sequence[Object], files: dict[str, Sequence[str]]) -> list[Workload]:
    """`files` says which files each Secret and ConfigMap holds."""
    found = []
    for each in of_kind(objects, *RUNNERS).values():
        inside = container(each)
        found.append(
            Workload(
                name=component(each),
                command=inside["command"],
                env={
                    var["name"]: var.get("value", "")
                    for var in inside.get("env", [])
                    if var["name"] != "POD_IP"
                },
                ports={port["containerPort"] for port in inside["ports"]},
                files={
                    f"{path}/{file}"
                    for _, name, path in mounts(each)
                    if path.startswith("/run/secrets")
                    for file in files[name]
                },
            )
        )
    return found
