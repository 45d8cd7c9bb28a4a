"""The link over real gRPC streams: servers die, come back, refuse and stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from factorychain._core.execution_context import Scope
from factorychain._core.link import request_key
from factorychain.errors import ChainDegraded, RunEnded, TokenExpired, TokenInvalid
from factorychain.types.v1.event_pb2 import AgentCompleted, AgentThinking, Event
from tests.link_fixture import BridgeHost, bridge_at, link_to
from tests.token_samples import issued


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[BridgeHost]:
    async with bridge_at(tmp_path / "bridge") as started:
        yield started


def thinking(text: str) -> bytes:
    return Event(agent_thinking=AgentThinking(text=text)).SerializeToString()


ENDING = Event(agent_completed=AgentCompleted(output_json='"done"')).SerializeToString()


def texts(host: BridgeHost, run: str) -> list[str]:
    return [event.agent_thinking.text for event in host.log.events(run)]


async def test_what_is_sent_becomes_durable_and_the_ending_is_waited_for(host: BridgeHost) -> None:
    ctx = host.tokens.context("one")
    async with link_to(host.address) as link, link.open(ctx) as run:
        for n in range(1, 101):
            await run.send(thinking(str(n)), n)
        await run.flushed()
        assert texts(host, ctx.run) == [str(n) for n in range(1, 101)]
        await run.send(ENDING, 101)
        await run.wait_ended()
        assert run.ended
        with pytest.raises(RunEnded):
            await run.send(thinking("late"), 102)


async def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(
    host: BridgeHost,
) -> None:
    names = ["a", "b", "c"]
    async with link_to(host.address) as link:
        runs = [(host.tokens.context(name), link.open(host.tokens.context(name))) for name in names]

        async def flood(index: int) -> None:
            _, run = runs[index]
            for n in range(1, 601):
                await run.send(thinking(f"{n}:" + "x" * 2_000), n)
            await run.send(ENDING, 601)
            await run.wait_ended()

        async def reached(goal: int) -> None:
            run = runs[0][0].run
            await host.log.wait_for(lambda: host.log.durable(run) >= goal)

        async def disturb() -> None:
            for goal in (50, 150, 300, 450):
                await reached(goal)
                await host.kill()
                await host.start()

        await asyncio.gather(disturb(), *(flood(index) for index in range(len(runs))))
        for ctx, run in runs:
            assert host.log.run_seqs(ctx.run) == list(range(1, 602))
            await run.close()
        assert len([each for each in host.log.opened if each.resumed]) >= 3


async def test_a_lost_acknowledgement_is_made_up_for_after_the_reconnect(host: BridgeHost) -> None:
    ctx = host.tokens.context("ack")
    host.log.acknowledging = False
    async with link_to(host.address) as link:
        run = link.open(ctx)
        await run.send(thinking("1"), 1)
        await host.log.wait_for(lambda: host.log.durable(ctx.run) == 1)
        host.log.acknowledging = True
        await host.kill()
        await host.start()
        await run.flushed()
        assert host.log.run_seqs(ctx.run) == [1]


async def test_runs_can_be_opened_before_the_peer_is_there(tmp_path: Path) -> None:
    host = BridgeHost(tmp_path / "late")
    async with link_to(host.address) as link:
        ctx = host.tokens.context("early")
        run = link.open(ctx)
        await run.send(thinking("1"), 1)
        await host.start()
        await run.flushed()
        assert texts(host, ctx.run) == ["1"]
        assert link.connected
    await host.kill()


async def test_sending_waits_while_the_window_is_full_and_others_go_on(host: BridgeHost) -> None:
    host.log.acknowledging = False
    stuck_ctx, lively_ctx = host.tokens.context("stuck"), host.tokens.context("lively")
    async with link_to(host.address) as link:
        stuck = link.open(stuck_ctx)

        async def send_all() -> None:
            for n in range(1, 10_000):
                await stuck.send(thinking("x" * 10_000), n)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_all(), 1)
        sent = stuck.core.last_run_seq
        assert 5 < sent < 40
        host.log.acknowledge()
        lively = link.open(lively_ctx)
        for n in range(1, 200):
            await lively.send(thinking("y" * 5_000), n)
        await lively.flushed()
        # A send that was cancelled while it waited has sent its event all the same.
        await stuck.send(thinking("last"), sent + 1)
        await stuck.flushed()
        assert host.log.run_seqs(stuck_ctx.run) == list(range(1, sent + 2))


async def test_a_bad_token_is_refused_and_its_neighbour_is_not(host: BridgeHost) -> None:
    other = BridgeHost(host.path)
    async with link_to(host.address) as link:
        forged = link.open(other.tokens.context("forged"))
        honest = link.open(host.tokens.context("honest"))
        await honest.send(thinking("1"), 1)
        await honest.flushed()
        with pytest.raises(TokenInvalid):
            await forged.wait_ended()
        with pytest.raises(TokenInvalid):
            await forged.send(thinking("1"), 1)


async def test_a_token_that_expires_while_the_stream_is_open_closes_its_run(
    host: BridgeHost,
) -> None:
    ctx = host.tokens.context("expires")
    async with link_to(host.address) as link:
        run = link.open(ctx)
        await run.send(thinking("1"), 1)
        await run.flushed()
        assert host.bridge is not None
        host.bridge.link._clock = lambda: ctx.expires_at_s + 1
        for stream in host.bridge.link._streams:
            stream._clock = host.bridge.link._clock
        await run.send(thinking("2"), 2)
        with pytest.raises(TokenExpired):
            await run.flushed()


async def test_a_run_with_a_later_token_outlives_its_first_one(host: BridgeHost) -> None:
    ctx = host.tokens.context("longer")
    later = issued(
        host.tokens.signer, run=ctx.run, thread=ctx.thread, deadline_s=time.time() + 900, limits={}
    )
    async with link_to(host.address) as link:
        run = link.open(ctx)
        await run.send(thinking("1"), 1, opens_call="c1")
        await run.send(thinking("2"), 2, opens_call=request_key("q1"))
        await run.flushed()
        run.renew(later.token)
        (channel,) = host.log.channels
        await host.log.wait_for(lambda: len(channel.contexts) == 2)
        assert channel.contexts[1].expires_at_s == later.expires_at_s
        assert host.bridge is not None
        for stream in host.bridge.link._streams:
            stream._clock = lambda: ctx.expires_at_s + 1
        await run.send(thinking("3"), 3)
        await run.flushed()
        # A new stream is opened with it, and says what is open.
        await host.kill()
        await host.start()
        await run.send(thinking("4"), 4)
        await run.flushed()
        opening = host.log.opened[-1]
        assert opening.token == later.token
        assert (list(opening.open_calls), list(opening.open_requests)) == (["c1"], ["q1"])
        assert texts(host, ctx.run) == ["1", "2", "3", "4"]


async def test_a_later_token_of_another_run_closes_the_run_that_shows_it(host: BridgeHost) -> None:
    ctx, other = host.tokens.context("one"), host.tokens.context("other")
    async with link_to(host.address) as link:
        run, neighbour = link.open(ctx), link.open(other)
        await run.send(thinking("1"), 1)
        await run.flushed()
        run.renew(other.token)
        with pytest.raises(TokenInvalid, match="another run"):
            await run.wait_ended()
        await neighbour.send(thinking("1"), 1)
        await neighbour.flushed()


async def test_an_expired_token_is_refused(host: BridgeHost) -> None:
    ctx = issued(host.tokens.signer, deadline_s=0, limits={})
    host.tokens.verifier._clock = lambda: time.time() + 3600
    async with link_to(host.address) as link:
        run = link.open(ctx)
        with pytest.raises(TokenExpired):
            await run.wait_ended()


async def test_a_run_that_has_ended_counts_as_ended_for_whoever_waits(host: BridgeHost) -> None:
    ctx = host.tokens.context("ended")
    host.log.append(ctx.run, [(1, ENDING)])
    async with link_to(host.address) as link:
        run = link.open(ctx)
        await run.wait_ended()
        with pytest.raises(RunEnded):
            await run.send(thinking("late"), 1)


async def test_a_run_that_its_owner_gave_up_never_counts_as_ended(host: BridgeHost) -> None:
    async with link_to(host.address) as link:
        run = link.open(host.tokens.context("given"))
        await run.send(thinking("1"), 1)
        waiting = asyncio.ensure_future(run.wait_ended())
        await run.flushed()
        await run.close()
        with pytest.raises(RunEnded, match="this end"):
            await waiting
        assert not run.ended


async def test_a_bridge_that_cannot_take_a_run_now_is_asked_again(host: BridgeHost) -> None:
    ctx = host.tokens.context("later")
    host.log.refuse_openings_with = ChainDegraded("nats")
    async with link_to(host.address) as link:
        run = link.open(ctx)
        await run.send(thinking("1"), 1)
        await host.log.wait_for(lambda: len(host.log.opened) >= 3)
        host.log.refuse_openings_with = None
        await run.flushed()
        assert texts(host, ctx.run) == ["1"]


async def test_a_handler_that_fails_takes_only_its_own_run_with_it(host: BridgeHost) -> None:
    def fail_once() -> None:
        host.log.before_write = lambda: None
        raise ZeroDivisionError

    async with link_to(host.address) as link:
        broken = link.open(host.tokens.context("broken"))
        await broken.send(thinking("1"), 1)
        await broken.flushed()
        host.log.before_write = fail_once
        await broken.send(thinking("2"), 2)
        with pytest.raises(Exception, match="failed on this run"):
            await broken.flushed()
        sound = link.open(host.tokens.context("sound"))
        await sound.send(thinking("1"), 1)
        await sound.flushed()


async def test_the_engine_settles_a_run_with_a_lifecycle_token(host: BridgeHost) -> None:
    ctx = host.tokens.context("settled", Scope.LIFECYCLE)
    async with link_to(host.address) as link, link.open(ctx) as run:
        await run.send(ENDING, 0)
        await run.wait_ended()
    assert host.log.run_seqs(ctx.run) == [0]


async def test_a_drained_server_ends_its_streams_and_the_link_comes_back(host: BridgeHost) -> None:
    async with link_to(host.address) as link:
        run = link.open(host.tokens.context("drained"))
        await run.send(thinking("1"), 1)
        await run.flushed()
        assert host.bridge is not None
        host.bridge.link.drain()
        await run.send(thinking("2"), 2)
        await run.flushed()
        assert host.log.durable(host.tokens.context("drained").run) == 2


async def test_nothing_of_a_closed_run_is_left_at_either_end(host: BridgeHost) -> None:
    async with link_to(host.address) as link:
        for n in range(50):
            async with link.open(
                host.tokens.context(f"{chr(97 + n % 26)}{chr(97 + n // 26)}")
            ) as run:
                await run.send(thinking("1"), 1)
                await run.flushed()
        assert link.runs == 0
        last = link.open(host.tokens.context("last"))
        await last.send(thinking("1"), 1)
        await last.flushed()
        assert host.bridge is not None
        assert host.bridge.link.channels == 1
