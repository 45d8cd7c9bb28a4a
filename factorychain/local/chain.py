"""The processes of a chain on one machine: NATS and the four layers, each with what it may know.

Invariant: a process is given the secrets that its layer needs and no other: only the engine the signing
key, only engine and bridge NATS credentials, only the agents the key of a model.

The layers call one another over Unix sockets in the data directory, which cost less than TCP and which
nobody else can open; they listen on TCP as well, for everybody else on the machine.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorychain._core.nats_permissions import bridge_user, engine_user, render_server_config
from factorychain._core.nats_server import server_binary
from factorychain._core.settings import PREFIX, AgentsSettings, NatsSettings
from factorychain.local.datadir import DataDir
from factorychain.local.packages import with_this_code
from factorychain.local.ports import hold_ports, port_of
from factorychain.local.process import ProcessSpec
from factorychain.local.secrets import SecretFile
from factorychain.local.state import ChainState

LAYERS = ("emitter", "bridge", "agents", "engine")
_HOST = "127.0.0.1"
_SOCKET_MAX_BYTES = 100  # `sun_path` has 108 with its end; macOS has 104
# Variables with which an operator says that users come from elsewhere.
_IDENTITY_PROVIDER = ("USER_JWKS_URL", "USER_JWKS_FILE", "USER_SECRET_FILE")
_MODEL_KEY = "LLM_API_KEY"


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """What was asked for on the command line."""

    edge_port: int = 8080
    agents: Sequence[str] = ()
    docs: Path | None = None
    isolation: str = ""
    """Of agents whose class does not say; empty: as the environment or the service's default has it."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ChainPlan:
    """Every process to start, in order, and where each will be."""

    processes: list[ProcessSpec]
    state: ChainState
    secrets: list[SecretFile]
    ports: list[socket.socket]
    """What holds the ports: a process that dies finds its own free."""

    def close(self) -> None:
        """Forgets the secrets and lets go of the ports."""
        for secret in self.secrets:
            secret.close()
        for holder in self.ports:
            holder.close()


def plan_chain(options: ChainOptions, data: DataDir) -> ChainPlan:
    """Chooses ports, writes the NATS configuration, and says how each process is started.

    Raises:
        NoFreePort: if the machine has too few free ports.
        FileNotFoundError: if no nats-server is installed.
    """
    held = hold_ports(2 + len(LAYERS))
    nats_port, *layer_ports, edge_port = map(port_of, held)
    ports = dict(zip(LAYERS, layer_ports, strict=True))
    edge = f"{_HOST}:{options.edge_port or edge_port}"
    addresses = {layer: f"{_HOST}:{port}" for layer, port in ports.items()}
    state = ChainState(
        edge=f"http://{edge}",
        engine=addresses["engine"],
        agents=addresses["agents"],
        emitter=addresses["emitter"],
        bridge=addresses["bridge"],
        nats=f"nats://{_HOST}:{nats_port}",
    )
    given = dict(os.environ) | dict(options.env)
    secrets = _Secrets(data, given.pop(f"{PREFIX}{_MODEL_KEY}", ""))
    near = _near_addresses(data, addresses)
    common = _common_environment(given, data, state, near)
    processes = [_nats(data, nats_port, given)]
    for layer in LAYERS:
        env = common | {f"{PREFIX}LISTEN": addresses[layer]} | secrets.environment(layer)
        if near[layer] != addresses[layer]:
            env[f"{PREFIX}LISTEN_ALSO"] = near[layer]
        env[f"{PREFIX}TERMINATION_FILE"] = str(data.reason_file(layer))
        if layer == "bridge":
            env[f"{PREFIX}EDGE_LISTEN"] = edge
        if layer == "agents":
            env |= _agents_environment(options, data)
        processes.append(
            ProcessSpec(
                layer,
                [sys.executable, "-P", "-m", f"factorychain_{layer}"],
                env,
                inherit=secrets.descriptors(layer),
            )
        )
    return ChainPlan(processes, state, secrets.files, held)


def _near_addresses(data: DataDir, addresses: Mapping[str, str]) -> Mapping[str, str]:
    """Where each layer finds the others: sockets, unless the folder's path is too long for them."""
    near = {layer: f"unix:{data.socket(layer)}" for layer in addresses}
    fit = all(len(str(data.socket(layer)).encode()) <= _SOCKET_MAX_BYTES for layer in addresses)
    return near if fit else addresses


def _nats(data: DataDir, port: int, env: Mapping[str, str]) -> ProcessSpec:
    shards = NatsSettings().log_shards
    config = render_server_config(
        port=port,
        store_dir=data.nats_store,
        users=[
            engine_user(data.nats_password("engine"), shards),
            bridge_user(data.nats_password("bridge"), shards),
        ],
    )
    data.write_private(data.nats_config, config.encode())
    command = [str(server_binary()), "--config", str(data.nats_config)]
    return ProcessSpec("nats", command, env, log_path=str(data.nats_log))


class _Secrets:
    """The secrets of the data directory as descriptors, and which layer gets which."""

    def __init__(self, data: DataDir, model_key: str) -> None:
        self._of: dict[str, list[tuple[str, SecretFile]]] = {layer: [] for layer in LAYERS}
        self.files: list[SecretFile] = []
        self._give("TXN_KEY_FILE", data.txn_key, "engine")
        for layer in ("engine", "bridge"):
            self._give("NATS_PASSWORD_FILE", data.nats_password(layer).encode(), layer)
        if not external_identity_provider():
            self._give("USER_SECRET_FILE", data.user_secret, "engine", "bridge")
        if model_key:
            self._give(f"{_MODEL_KEY}_FILE", model_key.encode(), "agents")

    def _give(self, variable: str, content: bytes, *layers: str) -> None:
        secret = SecretFile(variable.lower(), content)
        self.files.append(secret)
        for layer in layers:
            self._of[layer].append((f"{PREFIX}{variable}", secret))

    def environment(self, layer: str) -> dict[str, str]:
        paths = {variable: secret.path for variable, secret in self._of[layer]}
        return paths | ({f"{PREFIX}NATS_USER": layer} if layer in ("engine", "bridge") else {})

    def descriptors(self, layer: str) -> list[int]:
        return [secret.fd for _, secret in self._of[layer]]


def external_identity_provider(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the operator's own identity provider issues the users' tokens."""
    return any(env.get(f"{PREFIX}{name}") for name in _IDENTITY_PROVIDER)


def _common_environment(
    given: Mapping[str, str], data: DataDir, state: ChainState, near: Mapping[str, str]
) -> dict[str, str]:
    env = dict(given)
    env.setdefault(f"{PREFIX}MODE", "production" if external_identity_provider() else "development")
    env.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if env.get(f"{PREFIX}LLM_MODEL"):  # who sets up a model wants to talk with it
        env.setdefault(f"{PREFIX}DEFAULT_AGENT", "assistant")
    env |= {
        f"{PREFIX}NATS_URL": state.nats,
        f"{PREFIX}TXN_JWKS_FILE": str(data.txn_jwks_file),
    }
    for layer in LAYERS:
        env[f"{PREFIX}{layer.upper()}_ADDRESS"] = near[layer]
    return with_this_code(env)


def _agents_environment(options: ChainOptions, data: DataDir) -> dict[str, str]:
    # The keys of the chain are in it; agents may be given the folder that it is in.
    private = [*AgentsSettings().agent_unreadable_paths, str(data.path.resolve())]
    env = {f"{PREFIX}AGENT_UNREADABLE_PATHS": json.dumps(private)}
    if options.isolation:
        env[f"{PREFIX}ISOLATION"] = options.isolation
    if options.agents:
        env[f"{PREFIX}AGENT_MODULES"] = ",".join(options.agents)
    if options.docs is not None:
        env[f"{PREFIX}DOCS_DIR"] = str(options.docs.resolve())
    return env
