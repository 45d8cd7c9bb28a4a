"""compose.yaml: true to what the services read and listen on, open to this machine alone."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml

from deploy import credentials
from factorychain._core.settings import CommonSettings
from factorychain._core.telemetry import wants
from tests.unit.deploy.chain import (
    CREDENTIALS,
    DEPLOY,
    LAYERS,
    NATS_CONF,
    ROOT,
    Workload,
    listening,
    peer_problems,
    problems,
)

Compose = dict[str, Any]
CHAIN = (*LAYERS, "nats")
DRAIN_S = CommonSettings.model_fields["drain_timeout_s"].default


@cache
def _parsed() -> Compose:
    loaded: Compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def compose() -> Compose:
    """The file; the caller's own, to change at will."""
    return copy.deepcopy(_parsed())


def collector() -> Compose:
    loaded: Compose = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())
    return loaded


def workload(file: Compose, name: str) -> Workload:
    service = file["services"][name]
    found = Workload(
        name=name,
        command=service["command"],
        env={each: str(value) for each, value in service.get("environment", {}).items()},
        files={each["target"] for each in service.get("secrets", [])},
    )
    # Containers of one network reach every port: what is listened on is what is open.
    found.ports = set(listening(found).values())
    return found


def health_problems(file: Compose, name: str) -> list[str]:
    ports = listening(workload(file, name))
    expected = {
        "nats": ["http", f"http://127.0.0.1:{ports.get('monitor')}/healthz"],
        "bridge": ["http", f"http://127.0.0.1:{ports.get('http')}/readyz"],
    }.get(name, ["grpc", f"127.0.0.1:{ports.get('grpc')}"])
    script = "/opt/factorychain/healthcheck.py"
    test = file["services"][name].get("healthcheck", {}).get("test")
    wanted = ["CMD", "python", "-P", script, *expected]
    return [] if test == wanted else [f"{name}: health check {test} is not {wanted}"]


def secret_problems(file: Compose, name: str) -> list[str]:
    """Each secret is a file that credentials.py makes, mounted under its own name."""
    found = []
    for each in file["services"][name].get("secrets", []):
        path = file["secrets"].get(each["source"], {}).get("file", "")
        made = path.removeprefix("./secrets/")
        if made not in credentials.names() or each["target"] != f"{CREDENTIALS}/{made}":
            found.append(f"{name}: {path} at {each['target']}")
    return found


def container_problems(file: Compose, name: str) -> list[str]:
    service = file["services"][name]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    rules = {
        "image": service["image"] == f"${{CHAIN_IMAGE:-factorychain:{version}}}",
        # Someone else's image of this name must not be pulled.
        "never pulled": service.get("pull_policy") == "never",
        "read-only": service.get("read_only") is True,
        "no capabilities": service.get("cap_drop") == ["ALL"],
        "no new privileges": service.get("security_opt") == ["no-new-privileges:true"],
        "time to drain": int(service.get("stop_grace_period", "0s").rstrip("s")) > DRAIN_S + 5,
    }
    return [f"{name}: {rule}" for rule, holds in rules.items() if not holds]


def published_problems(file: Compose) -> list[str]:
    """Ports that other machines reach, or that nobody listens on. The viewer's is its own affair."""
    found = []
    for name, service in file["services"].items():
        for port in service.get("ports", []):
            host, _, inner = port.rpartition(":")
            if not host.startswith("127.0.0.1:"):
                found.append(f"{name}: {port} is open to other machines")
            if name in CHAIN and int(inner) not in workload(file, name).ports:
                found.append(f"{name}: nobody listens on {inner}")
    return found


def telemetry_problems(file: Compose, config: Compose) -> list[str]:
    """Signals that a service sends and the collector has no pipeline for, and wrong addresses."""
    found = []
    pipelines = config["service"]["pipelines"]
    receiver = config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    for name in LAYERS:
        env = workload(file, name).env
        sent = {signal for signal in ("traces", "metrics") if wants(signal, env)}
        if sent != set(pipelines):
            found.append(f"{name} sends {sorted(sent)}, the collector takes {sorted(pipelines)}")
        address = f"http://otel-collector:{receiver.rpartition(':')[2]}"
        if env.get("OTEL_EXPORTER_OTLP_ENDPOINT") != address:
            found.append(f"{name} does not send to {address}")
    return found


def pipeline_problems(config: Compose) -> list[str]:
    """Names in a pipeline that are not defined, and definitions that no pipeline uses."""
    found = []
    for kind in ("receivers", "processors", "exporters"):
        used = {each for line in config["service"]["pipelines"].values() for each in line[kind]}
        found += [f"{kind}: {each}" for each in sorted(used ^ set(config.get(kind, {})))]
    return found


def all_problems(file: Compose, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    workloads = [workload(file, name) for name in CHAIN]
    found = peer_problems(
        workloads, {each.name: (each.name, list(each.ports)) for each in workloads}
    )
    for each in workloads:
        with monkeypatch.context() as patch:
            found += problems(each, patch)
        found += health_problems(file, each.name)
        found += secret_problems(file, each.name)
        found += container_problems(file, each.name)
    return [*found, *published_problems(file), *telemetry_problems(file, collector())]


def test_ports_variables_health_checks_and_secrets_are_those_of_the_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert all_problems(compose(), monkeypatch) == []


def test_the_chain_nats_a_collector_and_a_viewer_are_there() -> None:
    assert set(compose()["services"]) == {*CHAIN, "otel-collector", "jaeger"}


def test_files_that_are_mounted_exist() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (
                (DEPLOY / source).is_file() if source[0] == "." else source in compose()["volumes"]
            )
            assert exists, volume


def test_services_wait_only_for_services_with_a_health_check() -> None:
    services = compose()["services"]
    for name, service in services.items():
        waits = service.get("depends_on", {})
        for each in waits:
            assert each in services, name
            if isinstance(waits, dict) and waits[each]["condition"] == "service_healthy":
                assert "healthcheck" in services[each], name


def test_nats_keeps_its_store_in_a_volume() -> None:
    service = compose()["services"]["nats"]
    assert "nats:/var/lib/nats" in service["volumes"]
    assert 'store_dir: "/var/lib/nats"' in NATS_CONF.read_text()


def test_the_collector_uses_what_it_defines_and_sends_to_the_viewer() -> None:
    config = collector()
    assert pipeline_problems(config) == []
    assert config["exporters"]["otlp/viewer"]["endpoint"] == "jaeger:4317"


def test_a_pipeline_that_names_nothing_is_found() -> None:
    config = collector()
    config["service"]["pipelines"]["traces"]["exporters"] = ["otlp/view"]
    assert pipeline_problems(config) == ["exporters: otlp/view", "exporters: otlp/viewer"]


FAULTS: dict[str, Callable[[dict[str, Compose]], object]] = {
    "a variable that nobody reads": lambda s: s["engine"]["environment"].update(
        FACTORYCHAIN_AGENT_ADDRESS="dns:///agents:7102"
    ),
    "a variable of another service": lambda s: s["agents"]["environment"].update(
        FACTORYCHAIN_NATS_URL="nats://nats:4222"
    ),
    "a variable that OpenTelemetry does not know": lambda s: s["engine"]["environment"].update(
        OTEL_ENDPOINT="http://otel-collector:4317"
    ),
    "a value out of bounds": lambda s: s["bridge"]["environment"].update(FACTORYCHAIN_MODE="dev"),
    "settings for nats": lambda s: s["nats"].update(
        environment={"FACTORYCHAIN_LISTEN": "0.0.0.0:1"}
    ),
    "a listen on another port": lambda s: s["emitter"]["environment"].update(
        FACTORYCHAIN_LISTEN="0.0.0.0:7104"
    ),
    "a peer on the wrong port": lambda s: s["bridge"]["environment"].update(
        FACTORYCHAIN_ENGINE_ADDRESS="dns:///engine:7102"
    ),
    "a key that is not mounted": lambda s: s["engine"]["secrets"].pop(1),
    "a key of another layer": lambda s: s["emitter"]["secrets"].append(s["engine"]["secrets"][1]),
    "a secret that nobody makes": lambda s: s["engine"]["secrets"].append(
        {"source": "more", "target": f"{CREDENTIALS}/more"}
    ),
    "a health check on another port": lambda s: s["engine"]["healthcheck"]["test"].__setitem__(
        -1, "127.0.0.1:7102"
    ),
    "no health check": lambda s: s["agents"].pop("healthcheck"),
    "an edge that is open to others": lambda s: s["bridge"].update(ports=["8080:8080"]),
    "a port that nobody listens on": lambda s: s["bridge"].update(ports=["127.0.0.1:80:8081"]),
    "an image that may be pulled": lambda s: s["bridge"].pop("pull_policy"),
    "no time to drain": lambda s: s["bridge"].update(stop_grace_period="10s"),
    "metrics without a pipeline": lambda s: s["agents"]["environment"].pop("OTEL_METRICS_EXPORTER"),
    "traces to another port": lambda s: s["agents"]["environment"].update(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://otel-collector:4318"
    ),
    "another command": lambda s: s["agents"].update(
        command=["python", "-m", "factorychain_agents"]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_find(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = compose()
    FAULTS[fault](file["services"])
    found = set(all_problems(file, monkeypatch))
    assert found - set(all_problems(compose(), monkeypatch)) != set()
