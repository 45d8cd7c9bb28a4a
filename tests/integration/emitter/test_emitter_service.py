"""The emitter as a service, between a real link from agents and a bridge over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from factorychain._core import tracing
from factorychain._core.component import ComponentGroup
from factorychain._core.execution_context import Scope
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.keys import TxnKey, jwks_document
from factorychain._core.link import LinkClient, LinkRun
from factorychain._core.metrics import REGISTRY, Histogram
from factorychain._core.settings import EmitterSettings, TransportSettings
from factorychain._core.tracing import ChainSpan
from factorychain._core.txn_tokens import TxnSigner
from factorychain.emitter.v1 import emitter_pb2, emitter_pb2_grpc
from factorychain.errors import RunEnded, TokenInvalid
from factorychain.types.v1.event_pb2 import AgentCompleted, AgentFailed, Event
from factorychain_emitter.server import EmitterServer
from tests.link_fixture import BridgeHost, Tokens, bridge_at
from tests.token_samples import TRUST_DOMAIN
from tests.unit.emitter.harness import STARTED, completed, delta, executing, thinking
from tests.unit.emitter.secret_samples import SAMPLES

ENDING = Event(agent_completed=AgentCompleted(output_json='"done"'))


@dataclass
class Chain:
    """A bridge, an emitter and a link from agents, all on Unix sockets."""

    folder: Path
    bridge: BridgeHost
    settings: EmitterSettings
    link: LinkClient[emitter_pb2.EmitRequest]
    emitter: EmitterServer = field(init=False)
    group: ComponentGroup = field(init=False)

    @property
    def tokens(self) -> Tokens:
        return self.bridge.tokens

    async def start_emitter(self) -> None:
        self.emitter = EmitterServer(self.settings)
        self.group = self.emitter.group()
        await self.group.start()

    async def restart_emitter(self) -> None:
        await self.group.stop()
        await self.start_emitter()

    async def open(self, name: str) -> tuple[str, LinkRun]:
        ctx = self.tokens.context(name)
        return ctx.run, self.link.open(ctx)


async def say(run: LinkRun, *events: Event) -> None:
    """Sends events with the numbers that follow."""
    for event in events:
        kind = event.WhichOneof("event")
        await run.send(
            event.SerializeToString(),
            run.core.last_run_seq + 1,
            opens_call=event.tool_executing.call if kind == "tool_executing" else "",
            closes_call=event.tool_completed.call if kind == "tool_completed" else "",
        )


@asynccontextmanager
async def chain_in(folder: Path) -> AsyncIterator[Chain]:
    async with bridge_at(folder / "bridge") as bridge:
        key = TxnKey.generate()
        bridge.tokens.signer = TxnSigner(key, TRUST_DOMAIN)
        jwks = folder / "jwks.json"
        jwks.write_text(jwks_document([key]))
        settings = EmitterSettings(
            listen=f"unix:{folder}/emitter",
            bridge_address=bridge.address,
            txn_jwks_file=jwks,
            trust_domain=TRUST_DOMAIN,
            drain_timeout_s=0.2,
        )
        # The bridge believes the same key.
        bridge.tokens.verifier = EmitterServer(settings).verifier
        await bridge.kill()
        await bridge.start()
        channel = GrpcChannel(settings.listen, "emitter", TransportSettings())
        stub = emitter_pb2_grpc.EmitterServiceStub(channel.channel)
        link = LinkClient(
            "agents to emitter",
            stub.Emit,
            lambda frames: emitter_pb2.EmitRequest(frames=frames),
            replay=True,
        )
        chain = Chain(folder, bridge, settings, link)
        await chain.start_emitter()
        await link.start()
        try:
            yield chain
        finally:
            await link.stop()
            await channel.stop()
            await chain.group.stop()


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with chain_in(tmp_path) as made:
        yield made


async def test_a_run_reaches_the_log_sanitised_and_in_order(chain: Chain) -> None:
    run_id, run = await chain.open("whole")
    secret = SAMPLES[3]
    await say(
        run,
        STARTED,
        thinking("hm"),
        executing("c1"),
        completed("c1", result=json.dumps(secret.text)),
    )
    await say(run, *[delta(char) for char in f"It is {secret.text}."], ENDING)
    await run.wait_ended()
    events = chain.bridge.log.events(run_id)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[:4] == ["agent_started", "agent_thinking", "tool_executing", "tool_completed"]
    assert kinds[-1] == "agent_completed"
    streamed = "".join(event.message_delta.text for event in events)
    assert streamed == "It is ghp_[REDACTED]."
    assert all(secret.body not in str(event) for event in events)


async def test_an_open_call_is_abandoned_in_the_same_piece_as_the_ending(chain: Chain) -> None:
    run_id, run = await chain.open("calls")
    await say(run, STARTED, executing("c1"), executing("c2"), completed("c1"), ENDING)
    await run.wait_ended()
    assert chain.bridge.log.kinds(run_id)[-2:] == ["tool_completed", "agent_completed"]
    assert chain.bridge.log.run_seqs(run_id)[-2:] == [5, 5]


async def test_a_rejected_event_is_told_to_the_sender_and_the_run_goes_on(chain: Chain) -> None:
    told: list[tuple[int, str]] = []
    ctx = chain.tokens.context("rejected")
    run = chain.link.open(
        ctx, on_rejected=lambda run_seq, reason, _: told.append((run_seq, reason))
    )
    await say(run, STARTED, completed("never-begun"))
    await run.send(b"\xff\xff\xff", 3)
    await say(run, ENDING)
    await run.wait_ended()
    assert told == [(2, "CALL_NOT_OPEN"), (3, "MALFORMED_EVENT")]
    assert chain.bridge.log.run_seqs(ctx.run) == [1, 4]


async def test_bytes_that_are_no_event_harm_no_other_run(chain: Chain) -> None:
    _, bad = await chain.open("bad")
    good_id, good = await chain.open("good")
    for n in range(1, 50):
        await bad.send(os.urandom(200), n)
        await say(good, STARTED if n == 1 else thinking(str(n)))
    await asyncio.gather(good.flushed(), bad.flushed())
    assert chain.bridge.log.run_seqs(good_id) == list(range(1, 50))


async def test_a_forged_token_is_refused(chain: Chain) -> None:
    forged = chain.link.open(Tokens().context("forged"))
    await say(forged, STARTED)
    with pytest.raises(TokenInvalid):
        await forged.wait_ended()


async def test_the_engine_settles_a_run_whose_agents_are_gone(chain: Chain) -> None:
    run_id, run = await chain.open("lost")
    await say(run, STARTED)
    await run.flushed()
    settling = chain.link.open(chain.tokens.context("lost", Scope.LIFECYCLE))
    lost = Event(agent_failed=AgentFailed(reason="AGENT_LOST", message="m"))
    await settling.send(lost.SerializeToString(), 0)
    await settling.wait_ended()
    assert chain.bridge.log.kinds(run_id) == ["agent_started", "agent_failed"]


async def test_what_the_bridge_refuses_is_passed_back(chain: Chain) -> None:
    ctx = chain.tokens.context("over")
    chain.bridge.log.append(ctx.run, [(1, ENDING.SerializeToString())])
    run = chain.link.open(ctx)
    await say(run, STARTED)
    await run.wait_ended()
    with pytest.raises(RunEnded):
        await say(run, thinking("late"))


async def test_the_loss_of_the_bridge_loses_and_doubles_nothing(chain: Chain) -> None:
    runs = [await chain.open(name) for name in ("a", "b")]

    async def talk(run: LinkRun) -> None:
        await say(run, STARTED)
        for n in range(400):
            await say(run, thinking(f"{n} " + "x" * 1_500))
        await say(run, ENDING)
        await run.wait_ended()

    async def disturb() -> None:
        log, first = chain.bridge.log, runs[0][0]
        for goal in (40, 120, 250):
            await log.wait_for(lambda goal=goal: log.durable(first) >= goal)  # type: ignore[misc]
            await chain.bridge.kill()
            await chain.bridge.start()

    await asyncio.gather(disturb(), *(talk(run) for _, run in runs))
    for run_id, _ in runs:
        assert chain.bridge.log.run_seqs(run_id) == list(range(1, 403))


async def test_the_loss_of_the_emitter_loses_and_doubles_nothing(chain: Chain) -> None:
    run_id, run = await chain.open("emitterless")
    log = chain.bridge.log

    async def talk() -> None:
        await say(run, STARTED)
        for n in range(150):
            await say(run, executing(f"c{n}"), thinking("x" * 1_000), completed(f"c{n}"))
        await say(run, ENDING)
        await run.wait_ended()

    async def disturb() -> None:
        for goal in (50, 200, 350):
            await log.wait_for(lambda goal=goal: log.durable(run_id) >= goal)  # type: ignore[misc]
            await chain.restart_emitter()

    await asyncio.gather(talk(), disturb())
    assert log.run_seqs(run_id) == list(range(1, 453))
    assert log.kinds(run_id).count("tool_completed") == 150


async def test_a_secret_that_is_held_while_the_emitter_dies_does_not_leave(chain: Chain) -> None:
    secret = SAMPLES[3]
    run_id, run = await chain.open("held")
    await say(run, STARTED, delta(f"see {secret.text[:12]}"), delta(secret.text[12:24]))
    await chain.bridge.log.wait_for(lambda: chain.bridge.log.durable(run_id) == 1)
    await chain.restart_emitter()
    await say(run, delta(secret.text[24:] + " there"), ENDING)
    await run.wait_ended()
    texts = [event.message_delta.text for event in chain.bridge.log.events(run_id)]
    assert "".join(texts) == "see ghp_[REDACTED] there"


async def test_a_run_whose_bridge_stalls_does_not_hold_up_another(chain: Chain) -> None:
    chain.bridge.log.acknowledging = False
    stuck_id, stuck = await chain.open("stuck")
    await say(stuck, STARTED)
    flood = asyncio.create_task(_flood(stuck))
    await chain.bridge.log.wait_for(lambda: chain.bridge.log.durable(stuck_id) > 10)
    chain.bridge.log.acknowledging = True
    quick_id, quick = await chain.open("quick")
    async with asyncio.timeout(5):
        await say(quick, STARTED, ENDING)
        await quick.wait_ended()
    assert chain.bridge.log.kinds(quick_id) == ["agent_started", "agent_completed"]
    flood.cancel()
    await asyncio.gather(flood, return_exceptions=True)


async def _flood(run: LinkRun) -> None:
    while True:
        await say(run, thinking("x" * 10_000))


async def test_nothing_is_left_of_runs_that_are_over(chain: Chain) -> None:
    for n in range(60):
        _, run = await chain.open(f"{chr(97 + n % 26)}{chr(97 + n // 26)}")
        await say(run, STARTED, delta("ghp_held"))
        if n % 3:
            await say(run, ENDING)
            await run.wait_ended()
        await run.close()
    _, last = await chain.open("last")
    await say(last, STARTED)
    await last.flushed()
    assert chain.emitter.link.channels == 1
    assert chain.emitter.bridge_link.runs == 1
    await last.close()


async def test_a_run_leaves_one_span_for_its_opening_and_one_for_its_ending(chain: Chain) -> None:
    ended: list[ChainSpan] = []

    class Sink:
        def sampled(self, *_: object) -> bool:
            return True

        def ended(self, span: ChainSpan) -> None:
            ended.append(span)

    tracing.set_sink(Sink())
    try:
        with tracing.span("invoke_agent") as agent:
            trace = agent.traceparent
        run = chain.link.open(chain.tokens.context("traced"), trace=trace)
        await say(run, STARTED, *[delta("word ") for _ in range(20)])
        await say(run, Event(trace=trace, agent_completed=ENDING.agent_completed))
        await run.wait_ended()
    finally:
        tracing.set_sink(None)
    ours = [span for span in ended if span.name.startswith("emitter ")]
    assert [span.name for span in ours] == ["emitter open", "emitter ending"]
    assert all(
        span.parent is not None and span.parent.span_id == agent.context.span_id for span in ours
    )
    assert chain.bridge.log.opened[-1].trace == ours[0].traceparent


async def test_making_an_emitter_is_measured(chain: Chain) -> None:
    _, run = await chain.open("measured")
    await say(run, STARTED)
    await run.flushed()
    creation = next(
        each for each in REGISTRY if each.described.name == "factorychain.creation.duration"
    )
    assert isinstance(creation, Histogram)
    measured = creation.labels({"layer": "websocket_emitter"})
    assert measured.count >= 1
    assert measured.quantile(0.5) < 0.1
