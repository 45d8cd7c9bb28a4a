"""Builds the engine: the only place that knows every part."""

from __future__ import annotations

import secrets
from typing import Final

from factorychain._core.component import Component, ComponentGroup
from factorychain._core.credentials import Authenticator
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.ids import Principal
from factorychain._core.jetstream import JetStream
from factorychain._core.link import LinkClient
from factorychain._core.log_reader import ThreadLogReader
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.plans import UserLimits
from factorychain._core.settings import EngineSettings
from factorychain._core.user_tokens import UserVerifier
from factorychain.agents.v1 import agents_pb2
from factorychain.emitter.v1 import emitter_pb2, emitter_pb2_grpc
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.agents.catalog import AgentCatalog
from factorychain_engine.agents.peers import AgentsPeers
from factorychain_engine.agents.replicas import Replicas
from factorychain_engine.agents.resolving import resolve
from factorychain_engine.cancelling import Canceller
from factorychain_engine.lifeline import EndReason, LifeLimits
from factorychain_engine.limits import Limits
from factorychain_engine.ownership.cleanup import CleanUp
from factorychain_engine.ownership.heartbeat import Heartbeat
from factorychain_engine.ownership.roll import EngineRoll
from factorychain_engine.places.enqueuing import Enqueuing
from factorychain_engine.places.entries import Entries
from factorychain_engine.places.factory import ExecutionEngineFactory
from factorychain_engine.places.own_room import OwnRoom
from factorychain_engine.places.starts import PlaceLimits, Starts
from factorychain_engine.queue.announcing import Announcer
from factorychain_engine.queue.endings import QueueEndings
from factorychain_engine.queue.promoting import Promoter
from factorychain_engine.queue.queues import Queues
from factorychain_engine.queue.turns import Turns
from factorychain_engine.readiness import Readiness
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.thread_values import ThreadValues, ValueLimits
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.responding import Responder
from factorychain_engine.runs.attempts import Attempts
from factorychain_engine.runs.bookkeeping import Bookkeeping
from factorychain_engine.runs.settling import Settler
from factorychain_engine.runs.speaking import Speaker
from factorychain_engine.runs.supervised_run import SupervisedRun
from factorychain_engine.runs.supervised_runs import SupervisedRuns
from factorychain_engine.service import EngineServicer
from factorychain_engine.standstill import Standstill
from factorychain_engine.storage.buckets import Storage
from factorychain_engine.storage.restoring import Restorer
from factorychain_engine.storage.watch import StorageWatch
from factorychain_engine.supervisor import RunSupervisor
from factorychain_engine.tokens.public_keys import PublicKeys
from factorychain_engine.tokens.run_tokens import RunTokens
from factorychain_engine.tokens.signing import signer_of, verifier_of
from factorychain_engine.validation import InputLimits
from factorychain_engine.views.run_views import RunViews
from factorychain_engine.views.thread_views import ThreadViews

CANCEL_GRACE_S: Final = 20.0
"""How long a run that agents were told to cancel may go on: longer than their own grace."""

_SERVICE = engine_pb2.DESCRIPTOR.services_by_name["EngineService"]


async def build(settings: EngineSettings) -> ComponentGroup:
    """All components of an engine, in the order in which they start."""
    return EngineServer(settings).group()


class EngineServer:
    """One engine: its parts by name, for the process and for tests."""

    def __init__(self, settings: EngineSettings) -> None:
        """To be made in a running event loop; opens nothing.

        Raises:
            KeyUnusable: A key or secret that is configured cannot be used.
            Misconfigured: The limits' file cannot be used.
        """
        self.settings = settings
        self.engine_id = f"e{secrets.token_hex(8)}"
        self.signer = signer_of(settings)
        self.limits = _limits(settings)
        self.user_verifier = UserVerifier.from_settings(settings)
        self._reach_others()
        self._keep_state()
        self._supervise()
        self._serve()

    def group(self) -> ComponentGroup:
        components: list[Component] = [
            self.user_verifier,
            self.limits,
            self.nats,
            self.storage,
            self.replicas,
            self.turns,
            self.emitter_channel,
            self.link,
            self.heartbeat,
            self.catalog,
            self.books,
            self.supervisor,
            self.standstill,
            self.announcer,
            self.queues,
            self.clean_up,
            self.storage_watch,
            self.server,
            self.readiness,
        ]
        timeout_s = self.settings.drain_timeout_s
        return ComponentGroup(components, name="engine", drain_timeout_s=timeout_s)

    # --- parts ------------------------------------------------------------------------------

    def _reach_others(self) -> None:
        settings = self.settings
        self.nats = NatsConnection.from_settings(settings, "engine")
        self.js = JetStream(self.nats, replicas=settings.nats_replicas)
        self.replicas = Replicas(
            settings.agents_address,
            lambda address: GrpcChannel(
                address,
                "agents",
                settings,
                carries=agents_pb2.DESCRIPTOR.services_by_name["AgentsService"],
            ),
            resolve,
        )
        self.peers = AgentsPeers(self.replicas, settings.rpc_timeout_s)
        self.emitter_channel = GrpcChannel(settings.emitter_address, "emitter", settings)
        stub = emitter_pb2_grpc.EmitterServiceStub(self.emitter_channel.channel)
        self.link = LinkClient(
            "engine to emitter",
            stub.Emit,
            lambda frames: emitter_pb2.EmitRequest(frames=frames),
            replay=True,
        )
        self.catalog = AgentCatalog(self.peers.list_agents, settings.default_agent)

    def _keep_state(self) -> None:
        settings = self.settings
        self.storage = Storage(
            self.js,
            records_max_age_s=settings.records_max_age_s,
            queue_max_s=settings.queue_max_s,
            replicas=settings.nats_replicas,
            look_s=settings.storage_look_s,
        )
        self.users = UsersStore(self.storage.users)
        self.records = Records(self.storage.runs, self.storage.threads, self.storage.queued)
        self.log = ThreadLogReader(self.js, settings.log_shards)
        self.outcomes = Outcomes(self.log, self.records)
        self.books = Bookkeeping(self.users, self.records, self.outcomes)
        self.heartbeat = Heartbeat(self.storage.engines, self.engine_id, settings.heartbeat_ttl_s)

    def _supervise(self) -> None:
        settings = self.settings
        limits = {
            "idle_s": int(settings.run_idle_s),
            "ask_s": int(settings.ask_max_s),
        }
        self.tokens = RunTokens(self.signer, limits, self.limits.of)
        self.attempts = Attempts(self.users, self.records, self.outcomes, self.peers)
        self.speaker = Speaker(self.link, self.tokens)
        self.settler = Settler(self.speaker, self.outcomes)
        self.runs = SupervisedRuns()
        self.own_room = OwnRoom(settings.max_runs_total, self.runs)
        self.turns = Turns(
            self.engine_id,
            self.storage.waiting,
            ready=self.peers.ready,
            room=self.replicas.room,
            own_room=self.own_room.left,
            look=lambda principal: self.queues.look(principal),  # noqa: PLW0108 - made below
        )
        self.entries = Entries(
            engine_id=self.engine_id,
            records=self.records,
            log=self.log,
            outcomes=self.outcomes,
            ready=self._ready,
            resolve=self.catalog.resolve,
            attempts=settings.run_attempts,
            limits=self.limits.of,
        )
        self._queue()
        self._admit()
        self._watch_storage()

    def _admit(self) -> None:
        """What takes places, and looks after the runs that have them."""
        settings = self.settings
        self.canceller = Canceller(
            self.runs, self.users, self.outcomes, self.peers, self.tokens, self.queues
        )
        starts = Starts(
            users=self.users,
            entries=self.entries,
            enqueuing=Enqueuing(
                lambda: self.queues.owner,
                self.users,
                self.records,
                self.limits.of,
                self.queues.queued,
            ),
            outcomes=self.outcomes,
            storage=self.storage,
            interrupt=self._interrupt,
            context=self.tokens.run,
            limits=PlaceLimits(self.limits.of, self.own_room),
        )
        self.factory = ExecutionEngineFactory(self.engine_id, starts, self.users, self.queues)
        self.supervisor = RunSupervisor(
            self.factory,
            self._supervised,
            self.runs,
            self.books,
            on_trouble=lambda: self.clean_up.sweep_soon(),  # noqa: PLW0108 - made below
        )
        self.clean_up = CleanUp(
            engine_id=self.engine_id,
            heartbeat=self.heartbeat,
            users=self.users,
            runs=self.runs,
            adopt_run=self.supervisor.adopt,
            queues=self.queues,
            roll=EngineRoll(self.engine_id, _adoption_grace_s(settings)),
            interval_s=settings.cleanup_interval_s,
        )

    def _watch_storage(self) -> None:
        restorer = Restorer(
            engine_id=self.engine_id,
            users=self.users,
            records=self.records,
            runs=self.runs,
            outcomes=self.outcomes,
            queues=self.queues,
            books=self.books,
        )
        self.storage_watch = StorageWatch(self.storage, restorer, self.settings.storage_look_s)
        self.users.on_vanished = self.storage_watch.users_vanished

    def _queue(self) -> None:
        """Who waits; and, of those whose turn it is, what the supervisor is to start."""
        self.announcer = Announcer(
            speaker=self.speaker,
            users=self.users,
            records=self.records,
            log=self.log,
        )
        promoter = Promoter(
            engine_id=self.engine_id,
            users=self.users,
            records=self.records,
            entries=self.entries,
            runs=self.runs,
            own_room=self.own_room,
            limits=self.limits.of,
            context=self.tokens.run,
            begin=lambda promoted: self.supervisor.start_promoted(promoted),  # noqa: PLW0108
        )
        self.queues = Queues(
            engine_id=self.engine_id,
            users=self.users,
            records=self.records,
            promoter=promoter,
            announcer=self.announcer,
            endings=QueueEndings(self.users, self.records, self.settler),
            max_wait_s=self.settings.queue_max_s,
            turns=self.turns,
        )

    def _serve(self) -> None:
        settings = self.settings
        self.run_views = RunViews(self.users, self.records, self.outcomes, self.runs)
        responder = Responder(
            users=self.users,
            records=self.records,
            outcomes=self.outcomes,
            log=self.log,
            runs=self.runs,
            agents=self.peers,
            tokens=self.tokens,
            start=self.supervisor.start_run,
        )
        self.standstill = Standstill()
        servicer = EngineServicer(
            supervisor=self.supervisor,
            standstill=self.standstill,
            canceller=self.canceller,
            responder=responder,
            runs=self.run_views,
            threads=ThreadViews(self.users, self.records, self.run_views),
            values=ThreadValues(self.storage.values, self.users, self._value_limits()),
            catalog=self.catalog,
            keys=PublicKeys(self.signer.key, settings.txn_jwks_file),
            input_limits=InputLimits(
                settings.input_max_bytes, settings.metadata_max_bytes, settings.answer_max_bytes
            ),
            limits=self.limits.of,
            plan_claim=settings.plan_claim,
        )
        service = Service(_SERVICE, engine_pb2_grpc.add_EngineServiceServicer_to_server, servicer)
        self.server = GrpcServer(
            settings,
            [service],
            Authenticator(users=self.user_verifier, txns=verifier_of(settings, self.signer)),
            drain_timeout_s=settings.drain_timeout_s / 2,
            serving=False,
        )
        self.server.on_drain(self.run_views.drain)
        self.readiness = Readiness(
            (self.nats, self.heartbeat, self.clean_up, self.supervisor, self.storage_watch),
            self.server.set_serving,
        )

    def _value_limits(self) -> ValueLimits:
        return ValueLimits(self.settings.state_value_max_bytes, self.settings.state_values_max)

    # --- what parts need of one another -----------------------------------------------------

    async def _ready(self, principal: Principal) -> None:
        self.storage.check()
        await self.turns.ready(principal)

    async def _interrupt(
        self, principal: Principal, thread: str, holder: ActiveRun | None, wait_s: float
    ) -> bool:
        # Those first that wait: they must not start when the place becomes free.
        await self.queues.end_thread(principal, thread, EndReason.INTERRUPTED)
        if holder is None:
            return True
        cancel = self.canceller.cancel_run
        return await cancel(principal, holder.run, EndReason.INTERRUPTED, wait_s)

    def _supervised(
        self, principal: Principal, entry: ActiveRun, context: UserExecutionContext | None
    ) -> SupervisedRun:
        settings = self.settings
        return SupervisedRun(
            principal,
            entry,
            agents=self.peers,
            tokens=self.tokens,
            outcomes=self.outcomes,
            settler=self.settler,
            attempts=self.attempts,
            on_again=self.books.again,
            limits=LifeLimits(
                settings.run_idle_s,
                settings.agents_lost_after_s,
                CANCEL_GRACE_S,
                settings.ask_max_s,
            ),
            context=context,
        )


def _limits(settings: EngineSettings) -> Limits:
    ground = UserLimits(settings.user_max_runs, settings.user_max_queued, settings.run_lifetime_s)
    return Limits(ground, settings.limits_file)


def _adoption_grace_s(settings: EngineSettings) -> float:
    """After an outage each engine renews its heartbeat within a third of the TTL."""
    return max(2 * settings.cleanup_interval_s, settings.heartbeat_ttl_s * 2 / 3)
