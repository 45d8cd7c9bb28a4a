"""What the documents tell people to type works: the README's first agent, the protocol's client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.chain import ROOT, Chain, environment, running_chain
from tests.unit.docs.documents import Block, blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _example(document: str) -> Block:
    return next(each for each in blocks("python") if each.path.name == document)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def documented(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """A chain with the agents of the README and of the document for authors."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "counter.py").write_text(_example("README.md").text)
    (folder / "greeter.py").write_text(_example("writing-agents.md").text)
    arguments = ["--agents", "counter", "--agents", "greeter"]
    env = {"PYTHONPATH": f"{folder}:{ROOT}"}
    async with running_chain(folder, arguments, env) as running:
        yield running


async def _typed(chain: Chain, command: str, *arguments: str) -> tuple[int, str]:
    """Exit status and standard output of a `factorychain` command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "factorychain.cli", command, *arguments, "--data", str(chain.data.path),
        env=environment(), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize("document", ["README.md", "writing-agents.md"])
async def test_the_first_agent_answers_in_the_chain(documented: Chain, document: str) -> None:
    example = _example(document).example
    assert example is not None
    agent, text = str(example["agent"]).lower(), str(example["input"])
    status, output = await _typed(documented, "run", "--user", "alice", "--agent", agent, text)
    assert status == 0, documented.log()[-2000:]
    assert output.strip() == example["output"]


async def test_the_researcher_answers_the_question_of_the_readme(documented: Chain) -> None:
    question = "What does the with statement do?"
    assert question in (ROOT / "README.md").read_text("utf-8")
    status, output = await _typed(documented, "run", "--user", "alice", question)
    assert status == 0
    assert "topics/with" in output


async def test_agents_and_status_show_what_is_there(documented: Chain) -> None:
    status, output = await _typed(documented, "agents", "--user", "alice")
    assert status == 0
    assert {"counter", "greeter", "researcher"} <= set(output.replace("│", " ").split())
    status, output = await _typed(documented, "status")
    assert status == 0
    assert "no" not in output.split()


async def test_the_client_of_the_protocol_prints_the_five_events(
    documented: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    block = _example("protocol.md")
    names: dict[str, object] = {}
    exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
    ask = names["ask"]
    assert asyncio.iscoroutinefunction(ask)
    await ask(documented.state.edge, documented.token("bruno"))
    types = {line.split()[1] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()}
    assert types >= {
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    }
