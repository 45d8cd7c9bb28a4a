"""Users one after the other on one warm zygote: a run finds nothing of those before it.

agno#2279 and #3937, laravel/ai#260: one agent object, used for one user after the other.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import orjson

from factorychain._core.ids import Principal
from tests.integration.agents.conftest import Chain, serving
from tests.waiting import until_true

PLACES = {
    "module", "environment", "context", "thread", "builtins", "cache", "class", "shared", "own",
    "files", "descriptors",
}  # fmt: skip
MODULE = "tests.integration.agents.memory_samples"


async def searched(chain: Chain, user: str, canary: str) -> Any:
    """What a run of this user found."""
    ctx = chain.token("searches", principal=Principal("acme", user))
    last = (await chain.run(ctx, canary))[-1]
    assert last.WhichOneof("event") == "agent_completed", last
    return orjson.loads(last.agent_completed.output_json)


async def test_nothing_of_the_users_before_is_in_a_process_nor_anywhere_in_its_memory(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, MODULE, isolation="process", idle_processes_min=1) as chain:
        for number in range(6):
            # One that was forked before the last run ended, then one that was forked after it.
            if number % 2:
                await until_true(lambda: chain.agents.processes.settled)
            canary = f"canary-{secrets.token_hex(8)}"
            found = await searched(chain, f"user-{number}", canary)
            assert found["before"] == []
            assert found["memory"] == [canary]
            # What is left there is found there, so that nothing found means that nothing is left.
            assert {*found["after"]} == PLACES
