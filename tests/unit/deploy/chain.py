"""What compose.yaml and the kustomize base have in common, and what must hold for both.

Each check answers with the problems that it found, so that a test can also show that it finds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry import environment_variables as otel_api_variables
from opentelemetry.sdk import environment_variables as otel_sdk_variables
from pydantic import ValidationError

from factorychain._core.carried.carrier import AGE_S
from factorychain._core.settings import PREFIX, CommonSettings, all_settings, settings_problem
from factorychain._core.settings.reference import SERVICES
from factorychain_bridge.edge.engine import CANCEL_TIMEOUT_S

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "k8s" / "base"
NATS_CONF = BASE / "nats.conf"
CREDENTIALS = "/run/secrets/factorychain"
LAYERS = tuple(SERVICES)

# On a stream that carries calls, which is about to be replaced.
LONGEST_CALL_S = CANCEL_TIMEOUT_S + 1.2 * AGE_S

READERS = {doc.variable: doc.services for doc in all_settings()}
OTEL_VARIABLES = {*vars(otel_api_variables), *vars(otel_sdk_variables)}
# What a variable that names a peer must lead to.
PEERS = {
    f"{PREFIX}ENGINE_ADDRESS": "engine",
    f"{PREFIX}AGENTS_ADDRESS": "agents",
    f"{PREFIX}EMITTER_ADDRESS": "emitter",
    f"{PREFIX}BRIDGE_ADDRESS": "bridge",
    f"{PREFIX}NATS_URL": "nats",
}


@dataclass
class Workload:
    """A container of the chain: one of the four layers, or nats."""

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    ports: set[int] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    """Where credentials are mounted, each with its whole path."""


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def host_of(target: str) -> str:
    """The host of `host:port`, `dns:///host:port` or `nats://host:port`."""
    return re.sub(r"^[a-z]+:/*", "", target).rpartition(":")[0]


def listening(workload: Workload) -> dict[str, int]:
    """The ports that the container's own configuration makes it listen on, by what for."""
    if workload.name == "nats":
        conf = NATS_CONF.read_text()
        found = dict(re.findall(r'^(listen|http): "0\.0\.0\.0:(\d+)"', conf, re.MULTILINE))
        return {"nats": int(found["listen"]), "monitor": int(found["http"])}
    ports = {"grpc": f"{PREFIX}LISTEN", "http": f"{PREFIX}EDGE_LISTEN"}
    return {use: port_of(workload.env[each]) for use, each in ports.items() if each in workload.env}


def variable_problems(workload: Workload) -> list[str]:
    """Variables that the process would not read."""
    found = []
    for name in workload.env:
        if name.startswith(PREFIX):
            if workload.name not in READERS.get(name, ()):
                found.append(f"{workload.name} does not read {name}")
        elif name.startswith("OTEL_") and name not in OTEL_VARIABLES:
            found.append(f"OpenTelemetry knows no {name}")
    return found


def value_problems(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Values with which the service would not start."""
    settings = SERVICES.get(workload.name)
    if settings is None:
        return (
            [f"{workload.name} takes no settings, but has {workload.env}"] if workload.env else []
        )
    for name, value in workload.env.items():
        monkeypatch.setenv(name, re.sub(r"\$\(\w+\)", "10.0.0.1", value))
    return [*_refused(settings), *_listens_for_itself(workload)]


def _refused(settings: type[CommonSettings]) -> list[str]:
    try:
        settings()
    except ValidationError as error:
        return [settings_problem(error)]
    return []


def _listens_for_itself(workload: Workload) -> list[str]:
    listens = {name: value for name, value in workload.env.items() if name.endswith("LISTEN")}
    return [
        f"{workload.name}: {name}={value} is not reachable from other containers"
        for name, value in listens.items()
        if not value.startswith("0.0.0.0:")
    ]


def command_problems(workload: Workload) -> list[str]:
    expected = ["python", "-P", "-m", f"factorychain_{workload.name}"]
    if workload.name == "nats":
        expected = ["nats-server", "--config", "/etc/nats/nats.conf"]
    if workload.command != expected:
        return [f"{workload.name}: {workload.command} is not {expected}"]
    if workload.name != "nats" and find_spec(f"{expected[-1]}.__main__") is None:
        return [f"{expected[-1]} cannot be run: it has no __main__"]
    return []


def file_problems(workload: Workload) -> list[str]:
    """Credentials that are named and not mounted, or mounted and not needed."""
    named = {value for name, value in workload.env.items() if name.endswith("_FILE")}
    if workload.name == "nats":
        included = re.findall(r'^include "\.\./\.\./(.+)"', NATS_CONF.read_text(), re.MULTILINE)
        named = {f"/{path}" for path in included}
    missing = [f"{workload.name}: {path} is not mounted" for path in sorted(named - workload.files)]
    more = [f"{workload.name}: {path} is not read" for path in sorted(workload.files - named)]
    return missing + more


def secret_problems(workload: Workload) -> list[str]:
    """Who holds what its layer must not hold (the private key: engine; NATS: engine and bridge)."""
    owners = {
        f"{PREFIX}TXN_KEY_FILE": {"engine"},
        f"{PREFIX}NATS_PASSWORD_FILE": {"engine", "bridge"},
        f"{PREFIX}USER_JWKS_FILE": {"engine", "bridge"},
        f"{PREFIX}USER_SECRET_FILE": {"engine", "bridge"},
    }
    more = [
        f"{workload.name} must not have {name}"
        for name, allowed in owners.items()
        if name in workload.env and workload.name not in allowed
    ]
    needs = {"engine": [f"{PREFIX}TXN_KEY_FILE"]}.get(workload.name, [])
    needs += [f"{PREFIX}TXN_JWKS_FILE"] if workload.name in LAYERS else []
    needs += [f"{PREFIX}NATS_PASSWORD_FILE"] if workload.name in ("engine", "bridge") else []
    return more + [f"{workload.name} needs {each}" for each in needs if each not in workload.env]


def port_problems(workload: Workload) -> list[str]:
    listens = set(listening(workload).values())
    if workload.ports == listens:
        return []
    return [f"{workload.name} opens {sorted(workload.ports)}, listens on {sorted(listens)}"]


def peer_problems(
    workloads: Iterable[Workload], hosts: Mapping[str, tuple[str, Sequence[int]]]
) -> list[str]:
    """Peers that cannot be reached. `hosts` maps a DNS name to its workload and open ports."""
    found = []
    for workload in workloads:
        for name, layer in PEERS.items():
            target = workload.env.get(name)
            if target is None:
                continue
            to, ports = hosts.get(host_of(target), ("nothing", ()))
            if to != layer or port_of(target) not in ports:
                found.append(f"{workload.name}: {name}={target} leads to {to} {list(ports)}")
    return found


def missing_peers(workload: Workload) -> list[str]:
    """Who a layer calls (docs: edge → engine → agents → emitter → bridge, and back for history)."""
    calls = {
        "engine": ["AGENTS_ADDRESS", "EMITTER_ADDRESS", "NATS_URL", "NATS_USER"],
        "agents": ["ENGINE_ADDRESS", "EMITTER_ADDRESS", "ADVERTISE_ADDRESS"],
        "emitter": ["BRIDGE_ADDRESS"],
        "bridge": ["ENGINE_ADDRESS", "NATS_URL", "NATS_USER"],
    }
    names = [f"{PREFIX}{each}" for each in calls.get(workload.name, [])]
    return [f"{workload.name} lacks {each}" for each in names if each not in workload.env]


def aging_problems(workload: Workload) -> list[str]:
    """Who is found by name closes connections now and then, or nobody would find another replica of it;
    calls that are open then have the time that they may take.
    """
    if workload.name not in ("engine", "emitter", "bridge"):  # the engine looks for agents itself
        return []
    age, grace = f"{PREFIX}MAX_CONNECTION_AGE_S", f"{PREFIX}MAX_CONNECTION_AGE_GRACE_S"
    found = [] if float(workload.env.get(age, 0)) > 0 else [f"{workload.name} lacks {age}"]
    if workload.name == "engine" and float(workload.env.get(grace, 30)) <= LONGEST_CALL_S:
        found.append(f"{grace} is no more than a cancel may take")
    return found


def problems(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that can be said of one container alone."""
    return [
        *command_problems(workload),
        *variable_problems(workload),
        *value_problems(workload, monkeypatch),
        *file_problems(workload),
        *secret_problems(workload),
        *port_problems(workload),
        *missing_peers(workload),
        *aging_problems(workload),
    ]
