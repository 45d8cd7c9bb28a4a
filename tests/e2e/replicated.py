"""The chain as it is scaled out: two replicas of every layer over a cluster of three NATS servers.

Each service alone, as an operator starts it, configured by its variables; nothing of `factorychain up`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from deploy import credentials
from deploy.healthcheck import CHECKS
from factorychain._core.nats_permissions import bridge_user, engine_user, render_server_config
from factorychain._core.nats_server import server_binary
from factorychain.local.ports import free_ports
from tests.e2e.chain import AGENTS, ROOT
from tests.e2e.sizes import LAYERS, NODES, REPLICAS

_HOST = "127.0.0.1"
_START_S = 200.0
_POLL_S = 0.1


def user_token(folder: Path, user: str, ttl_s: int) -> str:
    """A user's, of the chain in a folder."""
    return credentials.token(
        folder / "secrets", user=user, tenant="acme", audience=credentials.AUDIENCE, ttl_s=ttl_s
    )


class Replicated:
    """Where everything is, and the processes by name: `nats-0`, `engine-1`."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        """`env`: what services are told beside, or instead of, what they are told here."""
        self.folder = folder
        self.secrets = folder / "secrets"
        self._env = dict(env or {})
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        ports = iter(free_ports(3 * NODES + (len(LAYERS) + 1) * REPLICAS))
        self._ports = {"nats": list(itertools.islice(ports, NODES))}
        self._routes = list(itertools.islice(ports, NODES))
        self._monitors = list(itertools.islice(ports, NODES))
        self._ports |= {layer: list(itertools.islice(ports, REPLICAS)) for layer in LAYERS}
        self._edges = list(ports)

    @property
    def edges(self) -> Sequence[str]:
        return [f"http://{_HOST}:{port}" for port in self._edges]

    def names(self, layer: str) -> list[str]:
        count = NODES if layer == "nats" else REPLICAS
        return [f"{layer}-{index}" for index in range(count)]

    def monitor(self, index: int) -> str:
        """Where a NATS server tells about itself."""
        return f"http://{_HOST}:{self._monitors[index]}"

    def health(self, index: int) -> str:
        """Where a NATS server says whether it has what it missed."""
        return f"{self.monitor(index)}/healthz"

    def listens(self, layer: str, index: int) -> str:
        """Where a replica or a NATS server listens."""
        return f"{_HOST}:{self._ports[layer][index]}"

    def address(self, caller: str, layer: str, index: int) -> str:
        """Where a replica of `caller` is told to look for it: a test may put something in between."""
        return self.listens(layer, index)

    def token(self, user: str) -> str:
        return user_token(self.folder, user, ttl_s=600)

    def make_secrets(self) -> None:
        """Before anything is started."""
        credentials.make(self.secrets)

    async def start_all(self) -> None:
        """Returns when every replica takes new work."""
        self.make_secrets()
        names = [name for layer in ("nats", *LAYERS) for name in self.names(layer)]
        for name in names:
            await self.start(name)
        async with asyncio.timeout(_START_S):
            for name in names[NODES:] + names[:NODES]:
                await self.serving(name)

    async def start(self, name: str) -> None:
        """Starts what is not there, in its folder, which is kept over its lives."""
        command, env = self.command(name)
        with self.log_path(name).open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command, env=env, cwd=ROOT, stdout=log, stderr=log
            )

    async def kill(self, name: str) -> None:
        process = self.processes[name]
        process.kill()
        await process.wait()

    async def serving(self, name: str) -> None:
        """Returns when the replica takes new work; a NATS server also when it has what it missed."""
        layer, index = name.split("-")
        if layer == "nats":
            kind, target = "http", self.health(int(index))
        else:
            kind, target = "grpc", self.listens(layer, int(index))
        while await asyncio.to_thread(CHECKS[kind], target) is not None:
            assert self.processes[name].returncode is None, f"{name} has ended"
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        for process in reversed(self.processes.values()):
            if process.returncode is None:
                process.terminate()
        for process in self.processes.values():
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()

    def logs(self) -> str:
        return "\n".join(
            f"--- {each.name}\n{each.read_text(errors='replace')[-2000:]}"
            for each in sorted(self.folder.glob("*.log"))
        )

    # --- what is started --------------------------------------------------------------------

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def command(self, name: str) -> tuple[list[str], dict[str, str]]:
        """How it is started, and in which environment."""
        layer, index = name.split("-")
        path = {"PATH": os.environ["PATH"]}
        if layer == "nats":
            return self._nats_command(int(index)), path
        module = [sys.executable, "-P", "-m", f"factorychain_{layer}"]
        return module, self._environment(layer, int(index)) | path

    def _environment(self, layer: str, index: int) -> dict[str, str]:
        own = {
            "LISTEN": self.listens(layer, index),
            "ADVERTISE_ADDRESS": self.address(layer, layer, index),
            "TXN_KEY_FILE": self._secret("txn-key.pem"),
            "TXN_JWKS_FILE": self._secret("txn-jwks.json"),
            "USER_JWKS_FILE": self._secret("user-jwks.json"),
            "NATS_URL": ",".join(
                f"nats://{self.address(layer, 'nats', each)}" for each in range(NODES)
            ),
            "NATS_REPLICAS": str(NODES),
            "NATS_USER": layer,
            "NATS_PASSWORD_FILE": self._secret(f"nats-{layer}-password"),
            "EDGE_LISTEN": f"{_HOST}:{self._edges[index]}",
            "AGENT_MODULES": AGENTS,
            "ISOLATION": "task",
            "HEARTBEAT_TTL_S": "3",
            "CLEANUP_INTERVAL_S": "1",
            "FRAMES_PER_S": "1000",
            "FRAMES_BURST": "1000",
        }
        of_others = {
            f"{other.upper()}_ADDRESS": "ipv4:"
            + ",".join(self.address(layer, other, each) for each in range(REPLICAS))
            for other in LAYERS
        }
        named = {f"FACTORYCHAIN_{name}": value for name, value in (own | of_others).items()}
        return named | {"PYTHONPATH": str(ROOT), "GRPC_ENABLE_FORK_SUPPORT": "0"} | self._env

    def _secret(self, name: str) -> str:
        return str(self.secrets / name)

    def _nats_command(self, index: int) -> list[str]:
        users = [
            make((self.secrets / f"nats-{layer}-password").read_text().strip(), 1)
            for layer, make in (("engine", engine_user), ("bridge", bridge_user))
        ]
        config: dict[str, object] = json.loads(
            render_server_config(
                port=self._ports["nats"][index],
                store_dir=self.folder / f"nats-{index}",
                users=users,
                server_name=f"node-{index}",
            )
        )
        others: Mapping[str, object] = {
            "name": "factorychain",
            "listen": f"{_HOST}:{self._routes[index]}",
            "routes": [f"nats://{_HOST}:{port}" for port in self._routes],
            "no_advertise": True,  # clients know the addresses that they are told, and no other
        }
        path = self.folder / f"nats-{index}.conf"
        monitor = f"{_HOST}:{self._monitors[index]}"
        path.write_text(json.dumps(config | {"cluster": others, "http": monitor}))
        path.chmod(0o600)
        return [str(server_binary()), "--config", str(path)]


@contextlib.asynccontextmanager
async def replicated(folder: Path) -> AsyncIterator[Replicated]:
    """All of it, ready; it has ended when the block is left."""
    folder.mkdir(parents=True, exist_ok=True)
    chain = Replicated(folder)
    try:
        await chain.start_all()
        yield chain
    except BaseException as error:
        error.add_note(chain.logs())
        raise
    finally:
        await chain.stop()
