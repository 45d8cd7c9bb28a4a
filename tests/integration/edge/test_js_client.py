"""The JavaScript client under Node, against a real edge."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import orjson
import pytest

from factorychain._core.ids import Principal
from tests.chaos.relay import Relay
from tests.integration.edge.chain import Chain
from tests.integration.edge.people import EPOCH, A, token
from tests.integration.edge.test_client import complete
from tests.waiting import until_true

NODE = shutil.which("node")
CLIENT = Path(__file__).parents[3] / "clients" / "js" / "factorychain.js"

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node here")

PROGRAM = """
import { Client, ChainError } from %(client)s;
const say = (...what) => console.log(JSON.stringify(what));
const client = new Client(%(url)s, () => %(token)s, { onState: ({ state }) => say("state", state) });
await client.connect();
const run = await client.start({ text: "hi" }, { onEvent: (event) => say("event", event.seq, event.type) },
                               { thread: "t1", request_id: "q" });
say("started", run.run, run.thread);
setTimeout(() => client.cut(), 100);
const ending = await run.ended;
say("ended", ending.type, ending.data.output);
const stop = await client.subscribe("t1", { onEvent: (event) => say("again", event.seq),
                                            onCaughtUp: ({ seq }) => say("caught_up", seq) }, { after: 2, epoch: %(epoch)d });
try { await client.cancel("nonsense"); } catch (error) {
  say("error", error instanceof ChainError, error.code, error.reason);
}
stop();
client.close();
"""


# It stays until something is written to it.
STAYS = """
import { Client } from %(client)s;
const say = (...what) => console.log(JSON.stringify(what));
const client = new Client(%(url)s, () => %(token)s, { onState: ({ state }) => say("state", state), quietMs: 400, answerMs: 600 });
await client.connect();
await client.subscribe("t1", { onEvent: (event) => say("event", event.seq) }, { after: 0, epoch: %(epoch)d });
process.stdin.once("data", () => { client.close(); process.stdin.destroy(); });
"""


async def node(url: str, token_text: str, program: str = PROGRAM) -> asyncio.subprocess.Process:
    program = program % {
        "client": orjson.dumps(CLIENT.resolve().as_uri()).decode(),
        "url": orjson.dumps(url).decode(),
        "token": orjson.dumps(token_text).decode(),
        "epoch": EPOCH,
    }
    assert NODE is not None
    return await asyncio.create_subprocess_exec(
        NODE,
        "--no-warnings",
        "--experimental-websocket",
        "--input-type=module",
        "--eval",
        program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_it_runs_resumes_and_ends(chain: Chain) -> None:
    started: list[str] = []

    def work(user: Principal, thread: str, run: str) -> None:
        started.append(run)
        chain.hub.say(user, thread, run, "one", "two")

    chain.engine.on_start = work
    process = await node(chain.url, token())
    await until_true(lambda: started)
    await until_true(lambda: chain.hub.connected.get(A) == 0)  # it was cut
    chain.hub.say(A, "t1", started[0], "three")
    complete(chain, "t1", started[0])
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    said = [orjson.loads(line) for line in out.splitlines()]
    assert [line[1:] for line in said if line[0] == "event"] == [
        [1, "agent_thinking"],
        [2, "agent_thinking"],
        [3, "agent_thinking"],
        [4, "agent_completed"],
    ]
    assert ["started", started[0], "t1"] in said
    assert ["ended", "agent_completed", "done"] in said
    assert [line[1] for line in said if line[0] == "again"] == [3, 4]
    assert ["caught_up", 4] in said
    assert ["error", True, "NOT_FOUND", "RUN_NOT_FOUND"] in said
    assert [line[1] for line in said if line[0] == "state"].count("online") == 2
    assert process.returncode == 0


async def test_a_bad_token_rejects(chain: Chain) -> None:
    process = await node(chain.url, "nonsense")
    assert await asyncio.wait_for(process.wait(), 60) == 1


async def test_an_edge_that_says_nothing_and_closes_nothing_is_left(chain: Chain) -> None:
    relay = Relay(chain.url.removeprefix("http://"))
    process = await node(f"http://{await relay.listen()}", token(), STAYS)
    assert process.stdin is not None
    assert process.stdout is not None

    async def said() -> list[object]:
        assert process.stdout is not None
        found: list[object] = orjson.loads(await process.stdout.readline())
        return found

    try:
        async with asyncio.timeout(60):
            assert [await said(), await said()] == [["state", "connecting"], ["state", "online"]]
            await asyncio.sleep(3)  # quiet, but it answers
            chain.hub.say(A, "t1", "r1", "one")
            assert await said() == ["event", 1]
            relay.silence()
            chain.hub.say(A, "t1", "r1", "two")
            assert await said() == ["state", "waiting"]
            assert await said() == ["state", "connecting"]
            assert await said() == ["state", "waiting"]  # a connection that does not come about
            relay.heal()
            states = []
            while (found := await said())[0] == "state":
                states.append(found[1])
            assert states[-1] == "online"
            assert found == ["event", 2]
            process.stdin.write(b"enough")
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await relay.stop()
