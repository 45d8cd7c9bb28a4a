"""A client that comes back gets what it missed, from any position, once and in order."""

from __future__ import annotations

import json

import pytest

from factorychain._core.ids import Principal
from factorychain._core.jetstream import JetStream
from factorychain._core.log_reader import ThreadLogReader
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.nats_endpoint import NatsEndpoint
from tests.e2e.chain import Chain
from tests.e2e.sockets import Frame, Socket, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_replay_from_every_seq_gives_the_rest_exactly(chain: Chain) -> None:
    token = chain.token("rewind")
    async with connected(chain.state.edge, token) as socket:
        for text in ("30", "20"):
            started = await socket.start("steps", text, thread="replayed")
            await socket.ending(started["run"])
        whole, epoch = socket.events("replayed"), started["epoch"]
    assert [e["seq"] for e in whole] == list(range(1, len(whole) + 1))
    for after in range(len(whole) + 1):
        async with connected(chain.state.edge, token) as socket:
            reply, frames = await _joined(socket, "replayed", after=after, epoch=epoch)
            assert (reply["first"], reply["last"]) == (1, len(whole))
            assert _events(frames) == whole[after:]
            assert not [f for f in frames if f["op"] == "reset"]


async def test_a_wrong_epoch_is_reset_and_gets_everything(chain: Chain) -> None:
    token = chain.token("rewind2")
    async with connected(chain.state.edge, token) as socket:
        started = await socket.start("steps", "5", thread="epochs")
        await socket.ending(started["run"])
        whole = socket.events("epochs")
    for after, epoch in ((3, started["epoch"] - 1), (len(whole) + 7, started["epoch"])):
        async with connected(chain.state.edge, token) as socket:
            _, frames = await _joined(socket, "epochs", after=after, epoch=epoch)
        assert [f["op"] for f in frames if f["op"] in ("reset", "caught_up")] == [
            "reset",
            "caught_up",
        ]
        assert _events(frames) == whole


async def test_a_thread_with_nothing_in_it_is_caught_up_at_0(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("rewind3")) as socket:
        _, frames = await _joined(socket, "never-used", after=0)
    assert frames[-1] == {"op": "caught_up", "thread": "never-used", "seq": 0}


async def test_a_position_that_has_left_the_log_is_reset(chain: Chain) -> None:
    token = chain.token("old")
    async with connected(chain.state.edge, token) as socket:
        for _ in range(3):
            started = await socket.start("steps", "30:1", thread="aged")
            await socket.ending(started["run"])
        whole = socket.events("aged")
    first_run = whole[0]["run"]
    await _age_out(chain, Principal("default", "old"), first_run)
    async with connected(chain.state.edge, token) as socket:
        reply, frames = await _joined(socket, "aged", after=2, epoch=started["epoch"])
    assert reply["first"] > 3
    resets = [f for f in frames if f["op"] == "reset"]
    assert len(resets) == 1
    assert _events(frames) == [e for e in whole if e["seq"] >= reply["first"]]
    assert first_run not in {e["run"] for e in _events(frames)}


async def _age_out(chain: Chain, principal: Principal, run: str) -> None:
    """Takes everything up to the end of the run out of the log, as its age would."""
    password = chain.data.path / "keys" / "nats-bridge"
    connection = NatsConnection(NatsEndpoint(chain.state.nats, "bridge", password), "bridge")
    await connection.start()
    try:
        reader = ThreadLogReader(JetStream(connection), shards=1)
        ending = await reader.find_ending(principal, "aged", run, 0)
        assert ending is not None
        request = json.dumps({"seq": ending.stream_seq + 1}).encode()
        answer = await connection.nc.request("$JS.API.STREAM.PURGE.EVENTS-0", request)
        assert json.loads(answer.data)["success"]
    finally:
        await connection.stop()


async def _joined(socket: Socket, thread: str, **position: int) -> tuple[Frame, list[Frame]]:
    """Subscribes; the reply and every frame until the thread is caught up."""
    since = len(socket.frames)
    reply = await socket.result("subscribe", thread=thread, **position)
    await socket.wait_for(lambda f: f["op"] == "caught_up", since=since)
    return reply, [f for f in socket.frames[since:] if f["op"] != "reply"]


def _events(frames: list[Frame]) -> list[Frame]:
    return [event for frame in frames if frame["op"] == "events" for event in frame["events"]]
