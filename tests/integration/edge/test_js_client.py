"""The JavaScript client under Node, against a real edge."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import orjson
import pytest

from factorychain._core.ids import Principal
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


async def node(chain: Chain, token_text: str) -> asyncio.subprocess.Process:
    program = PROGRAM % {
        "client": orjson.dumps(CLIENT.resolve().as_uri()).decode(),
        "url": orjson.dumps(chain.url).decode(),
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
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_it_runs_resumes_and_ends(chain: Chain) -> None:
    started: list[str] = []

    def work(user: Principal, thread: str, run: str) -> None:
        started.append(run)
        chain.hub.say(user, thread, run, "one", "two")

    chain.engine.on_start = work
    process = await node(chain, token())
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
    process = await node(chain, "nonsense")
    assert await asyncio.wait_for(process.wait(), 60) == 1
