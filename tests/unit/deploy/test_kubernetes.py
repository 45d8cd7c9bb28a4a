"""The kustomize base: valid, and true to what the services read and listen on."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from unittest.mock import Mock

import kubernetes_validate
import pytest

from deploy import credentials
from factorychain._core.health import LIVENESS
from factorychain._core.settings import CommonSettings
from factorychain_bridge.edge.http import Routes
from tests.unit.deploy import kubernetes as k8s
from tests.unit.deploy.chain import BASE, LAYERS, ROOT, listening, peer_problems, problems
from tests.unit.deploy.kubernetes import Object

PARTS = (*LAYERS, "nats")
FILES = {**credentials.SECRETS, **credentials.CONFIG_MAPS}
DRAIN_S = CommonSettings.model_fields["drain_timeout_s"].default


def selected(objects: Sequence[Object], service: Object) -> list[Object]:
    """What a Service sends to."""
    wanted = service["spec"]["selector"].items()
    return [
        each
        for each in k8s.of_kind(objects, *k8s.RUNNERS).values()
        if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
    ]


def service_problems(objects: Sequence[Object]) -> list[str]:
    found = []
    for name, service in k8s.of_kind(objects, "Service").items():
        targets = selected(objects, service)
        if len(targets) != 1 or k8s.component(targets[0]) != k8s.component(service):
            found.append(f"{name} selects {[each['metadata']['name'] for each in targets]}")
            continue
        open_ports = {port["name"] for port in k8s.container(targets[0])["ports"]}
        found += [
            f"{name}: no port {port['targetPort']}"
            for port in service["spec"]["ports"]
            if port["targetPort"] not in open_ports
        ]
    return found


def hosts(objects: Sequence[Object]) -> dict[str, tuple[str, list[int]]]:
    """Each Service that leads to the ports as they are: its layer and its ports."""
    found = {}
    for name, service in k8s.of_kind(objects, "Service").items():
        [target] = selected(objects, service)
        numbers = {port["name"]: port["containerPort"] for port in k8s.container(target)["ports"]}
        same = [
            port["port"]
            for port in service["spec"]["ports"]
            # A headless Service maps no port: a client dials the pod itself.
            if numbers[port["targetPort"]] == port["port"]
        ]
        found[name] = (k8s.component(target), same)
    return found


def served_paths() -> set[str]:
    routes = Routes(origins=Mock(), readiness=Mock(), serve_socket=Mock(), mint=None)
    return {each.canonical for each in routes.application().router.resources()}


def probe_problems(objects: Sequence[Object], part: str) -> list[str]:
    inside = k8s.container(k8s.runner(objects, part))
    [workload] = [each for each in k8s.workloads(objects, dict(FILES)) if each.name == part]
    ports = listening(workload)
    named = {port["name"]: port["containerPort"] for port in inside["ports"]}
    found = []
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = inside.get(kind, {})
        if "grpc" in probe:
            wanted = "" if kind == "readinessProbe" else LIVENESS
            ok = probe["grpc"]["port"] == ports["grpc"]
            ok = ok and probe["grpc"].get("service", "") == wanted
        elif "httpGet" in probe:
            path = probe["httpGet"]["path"].partition("?")[0]
            ok = named.get(probe["httpGet"]["port"]) == ports.get("monitor", ports.get("http"))
            ok = ok and path in (served_paths() if part == "bridge" else {"/healthz"})
        else:
            ok = False
        found += [] if ok else [f"{part}: {kind} {probe}"]
    return found


def pod_problems(objects: Sequence[Object], part: str) -> list[str]:
    """What a pod must have whatever it runs."""
    owner = k8s.runner(objects, part)
    spec, inside = k8s.pod(owner), k8s.container(owner)
    labels = owner["spec"]["template"]["metadata"]["labels"]
    account = k8s.of_kind(objects, "ServiceAccount").get(spec.get("serviceAccountName", ""))
    security = inside.get("securityContext", {})
    rules = {
        "selector": owner["spec"]["selector"]["matchLabels"].items() <= labels.items(),
        "own account": account is not None and k8s.component(account) == part,
        "no token": spec.get("automountServiceAccountToken") is False,
        # Kubernetes would set FACTORYCHAIN_ENGINE_PORT=tcp://… for the Service factorychain-engine.
        "no service links": spec.get("enableServiceLinks") is False,
        "time to drain": spec.get("terminationGracePeriodSeconds", 0) > DRAIN_S + 5,
        "not root": spec.get("securityContext", {}).get("runAsNonRoot") is True,
        "no escalation": security.get("allowPrivilegeEscalation") is False,
        "no capabilities": security.get("capabilities", {}).get("drop") == ["ALL"],
        "read-only": security.get("readOnlyRootFilesystem") is True,
    }
    return [f"{part}: {rule}" for rule, holds in rules.items() if not holds]


def source_problems(objects: Sequence[Object], part: str) -> list[str]:
    """Secrets and ConfigMaps that nobody makes, or that are of the other kind."""
    generated = set(k8s.of_kind(objects, "ConfigMap"))
    known = {
        "secret": set(credentials.SECRETS),
        "configMap": set(credentials.CONFIG_MAPS) | generated,
    }
    return [
        f"{part}: no {kind} {name}"
        for kind, name, _ in k8s.mounts(k8s.runner(objects, part))
        if name not in known[kind]
    ]


def all_problems(objects: Sequence[Object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = service_problems(objects)
    if found:
        return found
    workloads = k8s.workloads(objects, dict(FILES))
    found += peer_problems(workloads, hosts(objects))
    for workload in workloads:
        with monkeypatch.context() as patch:
            found += problems(workload, patch)
    for part in PARTS:
        found += probe_problems(objects, part)
        found += pod_problems(objects, part)
        found += source_problems(objects, part)
    return found


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_every_object_is_valid(version: str) -> None:
    for each in k8s.rendered():
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("part", PARTS)
def test_each_layer_and_nats_has_what_runs_it_a_service_and_an_account(part: str) -> None:
    kinds = {
        each["kind"]
        for each in k8s.rendered()
        if f"factorychain-{part}" == each["metadata"]["name"]
    }
    runs = "StatefulSet" if part == "nats" else "Deployment"
    assert kinds == {runs, "Service", "ServiceAccount"}


def test_ports_variables_probes_and_files_are_those_of_the_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert all_problems(k8s.rendered(), monkeypatch) == []


def test_clients_reach_the_edge_through_a_service() -> None:
    objects = k8s.rendered()
    edge = k8s.of_kind(objects, "Service")["factorychain-edge"]
    assert [(port["port"], port["targetPort"]) for port in edge["spec"]["ports"]] == [(80, "http")]
    assert edge["spec"].get("clusterIP") != "None"


def test_every_container_runs_the_image_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    objects = k8s.rendered()
    images = {k8s.container(k8s.runner(objects, part))["image"] for part in PARTS}
    assert images == {f"factorychain:{version}"}


def test_the_base_holds_no_secret() -> None:
    assert k8s.of_kind(k8s.rendered(), "Secret") == {}


def test_nats_gets_the_config_of_the_base_and_keeps_its_store() -> None:
    objects = k8s.rendered()
    [config] = k8s.of_kind(objects, "ConfigMap").values()
    assert config["data"] == {"nats.conf": (BASE / "nats.conf").read_text()}
    nats = k8s.runner(objects, "nats")
    assert ("configMap", config["metadata"]["name"], "/etc/nats") in k8s.mounts(nats)
    paths = {each["name"]: each["mountPath"] for each in k8s.container(nats)["volumeMounts"]}
    [claim] = nats["spec"]["volumeClaimTemplates"]
    assert f'store_dir: "{paths[claim["metadata"]["name"]]}"' in (BASE / "nats.conf").read_text()


# --- that the checks find what is wrong -------------------------------------------------------


def env(objects: Sequence[Object], part: str, name: str) -> Object:
    [found] = [
        each for each in k8s.container(k8s.runner(objects, part))["env"] if each["name"] == name
    ]
    entry: Object = found
    return entry


def service(objects: Sequence[Object], name: str) -> Object:
    spec: Object = k8s.of_kind(objects, "Service")[name]["spec"]
    return spec


def inside(objects: Sequence[Object], part: str) -> Object:
    return k8s.container(k8s.runner(objects, part))


FAULTS: dict[str, Callable[[list[Object]], object]] = {
    "a variable that nobody reads": lambda o: inside(o, "engine")["env"].append(
        {"name": "FACTORYCHAIN_USER_MAX_RUN", "value": "2"}
    ),
    "a variable of another service": lambda o: inside(o, "emitter")["env"].append(
        {"name": "FACTORYCHAIN_NATS_URL", "value": "nats://factorychain-nats:4222"}
    ),
    "a value out of bounds": lambda o: inside(o, "bridge")["env"].append(
        {"name": "FACTORYCHAIN_SOCKETS_PER_USER", "value": "0"}
    ),
    "a listen on another port": lambda o: env(o, "agents", "FACTORYCHAIN_LISTEN").update(
        value="0.0.0.0:7109"
    ),
    "a listen on loopback": lambda o: env(o, "agents", "FACTORYCHAIN_LISTEN").update(
        value="127.0.0.1:7102"
    ),
    "a container port that nobody listens on": lambda o: inside(o, "bridge")["ports"].append(
        {"name": "metrics", "containerPort": 9090}
    ),
    "a peer on the wrong port": lambda o: env(o, "engine", "FACTORYCHAIN_AGENTS_ADDRESS").update(
        value="dns:///factorychain-agents:7103"
    ),
    "a peer that is another layer": lambda o: env(
        o, "emitter", "FACTORYCHAIN_BRIDGE_ADDRESS"
    ).update(value="dns:///factorychain-engine:7101"),
    "a peer that is not there": lambda o: env(o, "bridge", "FACTORYCHAIN_NATS_URL").update(
        value="nats://nats:4222"
    ),
    "no address of a peer": lambda o: inside(o, "agents")["env"].remove(
        env(o, "agents", "FACTORYCHAIN_EMITTER_ADDRESS")
    ),
    "a server whose connections live for ever": lambda o: inside(o, "engine")["env"].remove(
        env(o, "engine", "FACTORYCHAIN_MAX_CONNECTION_AGE_S")
    ),
    "a cancel that is cut off": lambda o: env(
        o, "engine", "FACTORYCHAIN_MAX_CONNECTION_AGE_GRACE_S"
    ).update(value="60"),
    "a selector that selects nothing": lambda o: service(o, "factorychain-edge")["selector"].update(
        {"app.kubernetes.io/component": "edge"}
    ),
    "a selector that selects everything": lambda o: service(o, "factorychain-edge")["selector"].pop(
        "app.kubernetes.io/component"
    ),
    "a service port that leads nowhere": lambda o: service(o, "factorychain-edge")["ports"][
        0
    ].update(targetPort="https"),
    "a service port that differs": lambda o: service(o, "factorychain-agents")["ports"][0].update(
        port=7103
    ),
    "a probe on another port": lambda o: inside(o, "engine")["readinessProbe"]["grpc"].update(
        port=7102
    ),
    "a liveness probe that follows readiness": lambda o: inside(o, "engine")["livenessProbe"][
        "grpc"
    ].pop("service"),
    "a probe of a path that is not served": lambda o: inside(o, "bridge")["readinessProbe"][
        "httpGet"
    ].update(path="/ready"),
    "a probe of nats on its client port": lambda o: inside(o, "nats")["livenessProbe"][
        "httpGet"
    ].update(port="nats"),
    "no probe": lambda o: inside(o, "emitter").pop("readinessProbe"),
    "a secret that nobody makes": lambda o: (
        k8s.pod(k8s.runner(o, "engine"))["volumes"].append(
            {"name": "more", "secret": {"secretName": "factorychain-txn"}}
        )
        or inside(o, "engine")["volumeMounts"].append({"name": "more", "mountPath": "/more"})
    ),
    "the private key at the bridge": lambda o: k8s.pod(k8s.runner(o, "bridge"))["volumes"][0][
        "projected"
    ]["sources"].append({"secret": {"name": "factorychain-txn-key"}}),
    "a key that is not mounted": lambda o: env(o, "engine", "FACTORYCHAIN_TXN_KEY_FILE").update(
        value="/run/secrets/factorychain/txn.pem"
    ),
    "another command": lambda o: inside(o, "agents").update(
        command=["python", "-m", "factorychain_agents"]
    ),
    "service links": lambda o: k8s.pod(k8s.runner(o, "bridge")).pop("enableServiceLinks"),
    "root": lambda o: k8s.pod(k8s.runner(o, "nats")).pop("securityContext"),
    "no time to drain": lambda o: k8s.pod(k8s.runner(o, "engine")).update(
        terminationGracePeriodSeconds=10
    ),
    "another's account": lambda o: k8s.pod(k8s.runner(o, "agents")).update(
        serviceAccountName="factorychain-engine"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_find(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = k8s.rendered()
    FAULTS[fault](objects)
    found = set(all_problems(objects, monkeypatch))
    assert found - set(all_problems(k8s.rendered(), monkeypatch)) != set()
