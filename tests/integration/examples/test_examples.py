"""Each example without a chain."""

from __future__ import annotations

import pytest

from factorychain.testing import Conversation, RunResult, run, run_async
from tests.integration.adapters.pydantic_ai.models import Models
from tests.integration.examples.modules import EXAMPLES, example
from tests.vendor import Call, Turn, Vendor
from tests.vendor.fixture import vendor
from tests.vendor.langchain_clients import langchain_clients

__all__ = ["langchain_clients", "vendor"]

FOLDERS = {each.parent.name for each in EXAMPLES.glob("*/README.md")}


def completed(result: RunResult) -> RunResult:
    assert result.ending.type == "agent_completed", result.ending
    return result


def test_each_example_is_listed_and_says_how_it_is_started() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert len(FOLDERS) == 5
    for folder in FOLDERS:
        assert f"({folder}/README.md)" in listed
        readme = (EXAMPLES / folder / "README.md").read_text()
        assert "factorychain up --agents" in readme
        assert "factorychain run --user" in readme or "console" in readme


def test_a_reading_list_is_kept_with_its_conversation() -> None:
    reading = example("plain", "reading")
    ada, bob = Conversation(), Conversation()
    completed(run(reading.ReadingList, "add Walden", conversation=ada))
    added = completed(run(reading.ReadingList, "add Emma", conversation=ada))
    assert added.output == "Walden: 8.8 hours\nEmma: 11.8 hours\n20.6 hours in all"
    assert {each.path for each in added.of_type("agent_thinking")} == {("estimator",)}
    assert run(reading.ReadingList, "show", conversation=bob).output == "0 hours in all"
    failed = run(reading.ReadingList, "add Middlemarch", conversation=ada)
    assert "I do not know Middlemarch" in str(failed.ending.data["message"])


@pytest.mark.parametrize(
    ("approved", "output"),
    [
        (True, "Refunded 12.50 for order 1001 (late)"),
        (False, "Nothing was paid: The user refused pay"),
    ],
)
def test_nothing_is_paid_that_is_not_approved(approved: bool, output: str) -> None:
    refunds = example("approval", "refunds")
    result = completed(run(refunds.Refunds, "refund 1001", answers=["late", approved]))
    assert result.output == output
    tools = [each.data["tool"] for each in result.of_type("tool_executing")]
    assert tools == (["look_up", "pay"] if approved else ["look_up"])


@pytest.mark.usefixtures("langchain_clients")
async def test_a_graph_looks_trains_up_and_books_what_is_confirmed(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", vendor.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", vendor.key)
    travel = example("langgraph", "travel")
    conversation = Conversation()
    train = "FR 9512, 08:45"
    vendor.script(
        Turn(calls=[Call("trains", {"origin": "Milan", "destination": "Turin"})]),
        Turn(calls=[Call("book", {"train": train})]),
        Turn(text="It is booked."),
    )
    asked = completed(
        await run_async(travel.graph, "A train to Turin, and book it", conversation=conversation)
    )
    (pending,) = asked.pending
    assert isinstance(pending, dict)
    assert pending["prompt"] == f"Shall I book a seat on {train}?"
    answers = {str(pending["request"]): "yes"}
    told = completed(await run_async(travel.graph, "", conversation=conversation, resume=answers))
    assert told.output == "It is booked."
    assert vendor.requests[-1].tool_results[-1] == f"booked: {train}"


async def test_a_trip_is_planned_with_the_lines_that_there_are(vendor: Vendor) -> None:
    models, planner = Models(vendor), example("pydantic_ai", "trips").planner
    trip = {"stops": ["Turin", "Milan", "Zurich"], "minutes": 259, "advice": "Sit on the left."}
    vendor.script(
        Turn(calls=[Call("minutes", {"start": "Turin", "end": "Zurich"})]),
        Turn(
            calls=[
                Call("minutes", {"start": "Turin", "end": "Milan"}),
                Call("minutes", {"start": "Milan", "end": "Zurich"}),
            ]
        ),
        Turn(calls=[Call("final_result", trip)]),
    )
    with planner.override(model=models("responses")):
        result = completed(await run_async(planner, "To Zurich"))
    await models.close()
    assert result.output == trip
    ends = [(each.data["ok"], each.data["result"]) for each in result.of_type("tool_completed")]
    assert ends[0] == (False, None)
    assert sorted(ends[1:]) == [(True, 62), (True, 197)]  # the two calls are made at once


def test_lengths_are_converted_by_a_server_of_tools() -> None:
    lengths = example("mcp", "lengths")
    result = completed(run(lengths.Lengths, "3 mile in km"))
    assert result.output == "3 mile = 4.83 km"
    assert [each.data["tool"] for each in result.of_type("tool_completed")] == ["convert"]
