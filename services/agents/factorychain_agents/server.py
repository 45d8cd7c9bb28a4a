"""The agents service's composition: the only place that builds things."""

from __future__ import annotations

import os
import sys
from functools import partial

from factorychain._core.component import Component, ComponentGroup
from factorychain._core.credentials import Authenticator
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.link import LinkClient
from factorychain._core.settings import AgentsSettings
from factorychain._core.txn_tokens import TxnVerifier
from factorychain._sandbox import Feature, probe
from factorychain.agents.v1 import agents_pb2
from factorychain.agents.v1.agents_pb2_grpc import add_AgentsServiceServicer_to_server
from factorychain.emitter.v1.emitter_pb2 import EmitRequest
from factorychain.emitter.v1.emitter_pb2_grpc import EmitterServiceStub
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain_agents.boot import Boot
from factorychain_agents.conversation import EngineConversation
from factorychain_agents.executors import Executors
from factorychain_agents.factory import AgentInstanceFactory, InstanceLimits
from factorychain_agents.gateway.server import gateway_of, secret_paths
from factorychain_agents.links import EmitterLinks
from factorychain_agents.output import OutputCapture
from factorychain_agents.process.process_executor import ProcessExecutor, ProcessOptions
from factorychain_agents.process.profiles import Allowed
from factorychain_agents.readiness import Readiness
from factorychain_agents.registry import AgentRegistry, load
from factorychain_agents.required import check_required
from factorychain_agents.runs import Runs
from factorychain_agents.service import AgentsService
from factorychain_agents.task_executor import TaskExecutor

_SERVICE = agents_pb2.DESCRIPTOR.services_by_name["AgentsService"]


async def build(settings: AgentsSettings) -> ComponentGroup:
    """All components of the agents layer, in the order in which they start."""
    return AgentsServer(settings).group()


class AgentsServer:
    """One replica of the agents layer: its parts by name, for the process and for tests."""

    def __init__(self, settings: AgentsSettings) -> None:
        """To be made in a running event loop; opens nothing but the gateway's port, and imports the
        agents' modules.

        Raises:
            AgentsUnusable: Agents that are named cannot be loaded.
            KeyUnusable: A key that is configured cannot be used.
            Misconfigured: What the gateway is configured with cannot be used.
            SandboxRequired: Agents cannot be confined here as the operator requires.
        """
        self.settings = settings
        self._environment = dict(os.environ)
        # Before modules are imported, which may make clients of models.
        self.gateway = gateway_of(settings)
        self.output = OutputCapture(as_json=not _for_people(settings))
        try:
            self.registry = AgentRegistry(load(settings.agent_modules), settings.isolation)
            check_required(settings, self.registry, probe())
        except BaseException:
            if self.gateway is not None:
                self.gateway.release()
            raise
        self.tasks = TaskExecutor(self.registry)
        self.processes = self._processes()
        self.executor = Executors(self.registry, self.processes, self.tasks)
        self.emitter_channel = GrpcChannel(settings.emitter_address, "emitter", settings)
        self.engine_channel = GrpcChannel(settings.engine_address, "engine", settings)
        self.link = self._link()
        self.runs = self._runs()
        self.boot = Boot(lambda: settings.advertise_address or self.server.address)
        self.server = self._server()

    def group(self) -> ComponentGroup:
        components: list[Component] = [
            self.output,
            *([self.gateway] if self.gateway is not None else []),
            self.registry,
            self.executor,
            self.emitter_channel,
            self.engine_channel,
            self.link,
            self.runs,
            self.server,
            Readiness(self.link, [self.executor], self.server.set_serving),
        ]
        timeout_s = self.settings.drain_timeout_s
        return ComponentGroup(components, name="agents", drain_timeout_s=timeout_s)

    def _processes(self) -> ProcessExecutor:
        settings = self.settings
        allowed = Allowed(
            settings.agent_memory_max_bytes,
            settings.agent_cpu_max_s,
            settings.agent_open_files,
            settings.agent_file_max_bytes,
            settings.agent_nice,
            settings.agent_processes,
            (*settings.agent_unreadable_paths, *secret_paths(settings)),
            required=frozenset(Feature) if settings.require_sandbox else frozenset(),
        )
        options = ProcessOptions(
            allowed,
            idle_min=settings.idle_processes_min,
            idle_max=settings.idle_processes_max,
            silent_s=settings.agent_silence_max_s,
            grace_s=settings.cancel_grace_s,
            events_per_s=settings.run_events_per_s,
            events_burst=settings.run_events_burst,
            busy_nice=settings.agent_busy_nice,
            gateway_url=self.gateway.url if self.gateway is not None else "",
        )
        isolated = self.registry.isolated("process")
        return ProcessExecutor(
            isolated,
            options,
            self.output.show,
            self.registry.validated,
            elsewhere=[each.name for each in self.registry.isolated("task")],
            environment=self._environment,
        )

    def _link(self) -> LinkClient[EmitRequest]:
        stub = EmitterServiceStub(self.emitter_channel.channel)
        return LinkClient(
            "emitter",
            stub.Emit,
            lambda frames: EmitRequest(frames=frames),
            replay=True,
        )

    def _runs(self) -> Runs:
        settings = self.settings
        limits = InstanceLimits(settings.output_max_bytes, settings.alive_interval_s)
        engine = EngineServiceStub(self.engine_channel.channel)
        return Runs(
            AgentInstanceFactory(self.registry, self.executor, limits),
            EmitterLinks(self.link),
            partial(EngineConversation, engine),
            max_runs=settings.max_runs,
            cancel_grace_s=settings.cancel_grace_s,
            outage_max_s=settings.outage_max_s,
            gateway=self.gateway,
        )

    def _server(self) -> GrpcServer:
        settings = self.settings
        service = AgentsService(
            self.runs,
            self.registry,
            self.boot,
            settings.alive_interval_s,
            lambda: self.server.health.serving,
        )
        server = GrpcServer(
            settings,
            [Service(_SERVICE, add_AgentsServiceServicer_to_server, service)],
            Authenticator(txns=TxnVerifier.from_settings(settings)),
            # The other half is for ending what has not ended by then.
            drain_timeout_s=settings.drain_timeout_s / 2,
            serving=False,
        )
        server.on_drain(self.runs.drain)
        return server


def _for_people(settings: AgentsSettings) -> bool:
    if settings.log_format == "auto":
        return sys.stderr.isatty()
    return settings.log_format == "console"
