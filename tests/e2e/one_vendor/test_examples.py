"""What people begin with runs as it is written: a new project, and every example, in one chain."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.command import ROOT, Command, finished
from tests.e2e.chain import Chain
from tests.e2e.sockets import Frame, Socket, connected
from tests.vendor import Call, Turn, Vendor

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def command(project: Path) -> Command:
    return Command(project, env={"PYTHONPATH": str(ROOT)})


@pytest_asyncio.fixture(loop_scope="session")
async def socket(served: Chain) -> AsyncIterator[Socket]:
    async with connected(served.state.edge, served.token("ada")) as connection:
        yield connection


async def output(socket: Socket, agent: str, text: str, thread: str = "") -> tuple[object, str]:
    """What a run came to, and its id."""
    fields = {"thread": thread} if thread else {}
    started = await socket.start(agent, text, **fields)
    ending = await socket.ending(started["run"])
    assert ending["type"] == "agent_completed", ending
    return ending["data"]["output"], started["run"]


def of_type(socket: Socket, run: str, kind: str) -> list[Frame]:
    return [each for each in socket.run_events(run) if each["type"] == kind]


async def asked(socket: Socket, run: str, kind: str) -> str:
    """The id of the run's question of this kind, as soon as there is one."""

    def found() -> list[str]:
        requests = [each["data"] for each in of_type(socket, run, "input_requested")]
        return [each["request"] for each in requests if each["kind"] == kind]

    await socket.wait_for(lambda _: bool(found()))
    return found()[0]


async def test_a_new_projects_own_test_passes(command: Command) -> None:
    process = await Command(
        command.cwd, (sys.executable, "-m", "pytest", "-p", "no:cacheprovider"), command.env
    ).started()
    ended = await finished(process)
    assert ended.status == 0, ended.out
    assert "2 passed" in ended.out


async def test_a_new_project_runs_as_its_readme_says(served: Chain, command: Command) -> None:
    said = await command("run", "--user", "you", "--agent", "my-agent", "tea cake", "--data", str(served.data.path))  # fmt: skip
    assert said.status == 0, said.err
    assert "That is 6.70. Anything else?" in said.out


async def test_a_reading_list_is_kept_and_its_sub_agent_has_a_path(
    served: Chain, socket: Socket
) -> None:
    await output(socket, "reading-list", "add Walden", "books")
    found, run = await output(socket, "reading-list", "add Emma", "books")
    assert found == "Walden: 8.8 hours\nEmma: 11.8 hours\n20.6 hours in all"
    paths = [(each["type"], each.get("path")) for each in socket.run_events(run)]
    assert [each for each in paths if each[0] != "message_delta"] == [
        ("agent_started", None),
        ("tool_executing", None),
        ("agent_thinking", ["estimator"]),
        ("tool_executing", ["estimator"]),
        ("tool_completed", ["estimator"]),
        ("tool_completed", None),
        ("agent_completed", None),
    ]
    async with connected(served.state.edge, served.token("bob")) as bobs:
        elsewhere, _ = await output(bobs, "reading-list", "show", "books")
    assert elsewhere == "0 hours in all"


async def test_a_refund_is_paid_when_it_is_approved(socket: Socket) -> None:
    started = await socket.start("refunds", "refund 1001")
    run = started["run"]
    for kind, value in (("question", "late"), ("approval", True)):
        request = await asked(socket, run, kind)
        await socket.result("respond", run=run, request=request, value=value)
    ending = await socket.ending(run)
    assert ending["data"]["output"] == "Refunded 12.50 for order 1001 (late)"


async def test_a_graph_books_what_is_confirmed(socket: Socket, vendor: Vendor) -> None:
    vendor.script(
        Turn(calls=[Call("trains", {"origin": "Milan", "destination": "Turin"})]),
        Turn(calls=[Call("book", {"train": "R 2032"})]),
        Turn(text=["It is ", "booked."]),
    )
    started = await socket.start("graph", "Book the first train to Turin", thread="trains")
    ending = await socket.ending(started["run"])
    (pending,) = ending["data"]["pending"]
    goes_on = await socket.result(
        "respond", run=started["run"], request=pending["request"], value="yes"
    )
    last = await socket.ending(goes_on["run"])
    assert last["data"]["output"] == "It is booked."
    assert vendor.requests[-1].tool_results[-1] == "booked: R 2032"
    assert of_type(socket, started["run"], "custom")


async def test_a_trip_is_planned_with_a_call_that_is_made_again(
    socket: Socket, vendor: Vendor
) -> None:
    trip = {"stops": ["Turin", "Milan"], "minutes": 62, "advice": "Be early."}
    vendor.script(
        Turn(calls=[Call("minutes", {"start": "Turin", "end": "Rome"})]),
        Turn(calls=[Call("minutes", {"start": "Turin", "end": "Milan"})]),
        Turn(calls=[Call("final_result", trip)]),
    )
    found, run = await output(socket, "planner", "From Turin to Milan, please")
    assert found == trip
    shown = [each["data"]["ok"] for each in of_type(socket, run, "tool_completed")]
    assert shown == [False, True]


async def test_lengths_are_converted_inside_of_the_confinement(socket: Socket) -> None:
    found, run = await output(socket, "lengths", "3 mile in km")
    assert found == "3 mile = 4.83 km"
    assert [each["data"]["tool"] for each in of_type(socket, run, "tool_completed")] == ["convert"]
