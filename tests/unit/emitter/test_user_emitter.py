"""One run's emitter: what leaves, in which order, and what is acknowledged when."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from factorychain._core.event_kinds import LIFECYCLE
from factorychain._core.execution_context import Scope
from factorychain._core.link import Refusal
from factorychain.errors import RunEnded
from factorychain.types.v1.event_pb2 import (
    AgentCancelled,
    AgentCompleted,
    AgentFailed,
    AgentStarted,
    Custom,
    Event,
    InputRequested,
    RunQueued,
    ToolCompleted,
    ToolFailure,
    Usage,
)
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_emitter.redaction import MASK
from factorychain_emitter.reporting import LOGGED_PER_RUN
from factorychain_emitter.validation import Limits
from tests.unit.emitter.harness import (
    COMPLETED,
    EVENT_MAX,
    OUTPUT_MAX,
    STARTED,
    TOKEN,
    Harness,
    completed,
    delta,
    executing,
    started_run,
    thinking,
    thought,
)

SECRET = "ghp_" + "a1B2" * 9


async def test_a_run_passes_from_its_beginning_to_its_ending() -> None:
    harness = Harness()
    harness.say(
        STARTED, thinking("hm"), executing("c1"), completed("c1"), delta("Hello"), COMPLETED
    )
    assert harness.far.kinds == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "message_delta",
        "agent_completed",
    ]
    assert [run_seq for run_seq, _ in harness.far.pieces] == [1, 2, 3, 4, 5, 6]
    harness.durable(6, ended=True)
    assert harness.near.acknowledgements == [6]
    assert harness.near.ended


async def test_who_runs_is_what_the_token_says() -> None:
    harness = Harness()
    harness.say(Event(seq=9, run="other", agent_started=AgentStarted(agent="forged", attempt=7)))
    (event,) = harness.far.events
    assert (event.agent_started.agent, event.agent_started.attempt) == ("researcher", 2)
    assert (event.seq, event.run) == (0, "")


async def test_an_event_is_acknowledged_only_when_it_is_durable() -> None:
    harness = started_run()
    harness.say(thinking("1"), thinking("2"))
    assert harness.near.acknowledgements == []
    harness.durable(2)
    assert harness.near.acknowledgements == [2]


# --- rejections --------------------------------------------------------------------------------


async def test_a_rejected_event_counts_as_acknowledged_once_all_before_it_is_durable() -> None:
    harness = started_run()
    harness.say(completed("never-begun"))
    assert harness.near.rejections == [(2, "CALL_NOT_OPEN")]
    assert harness.near.acknowledgements == []
    harness.durable(1)
    assert harness.near.acknowledgements == [2]


async def test_a_rejected_event_with_nothing_before_it_is_acknowledged_at_once() -> None:
    harness = started_run()
    harness.durable(1)
    harness.say(completed("never-begun"))
    assert harness.near.acknowledgements == [1, 2]


async def test_the_run_goes_on_after_a_rejection() -> None:
    harness = started_run()
    harness.say(b"\xff\xff", thinking("on"), COMPLETED)
    assert harness.reasons == ["MALFORMED_EVENT"]
    assert harness.far.kinds == ["agent_started", "agent_thinking", "agent_completed"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Event(), "UNKNOWN_EVENT"),
        (thinking("x" * EVENT_MAX), "EVENT_TOO_LARGE"),
        (executing(""), "INVALID_FIELD"),
        (executing("with space"), "INVALID_FIELD"),
        (executing("c1", ""), "INVALID_FIELD"),
        (executing("c1", "a\nb"), "INVALID_FIELD"),
        (executing("c1", arguments="[]"), "INVALID_FIELD"),
        (executing("c1", arguments="{"), "INVALID_FIELD"),
        (Event(custom=Custom(name="n", data_json="oops")), "INVALID_FIELD"),
        (Event(input_requested=InputRequested(request="q")), "INVALID_FIELD"),
        (
            Event(path=[f"p{n}" for n in range(17)], agent_thinking=thinking("").agent_thinking),
            "INVALID_FIELD",
        ),
        (STARTED, "ALREADY_STARTED"),
        (Event(run_queued=RunQueued(position=1)), "NOT_ALLOWED"),
    ],
)
async def test_a_bad_event_is_answered_with_its_reason(event: Event, reason: str) -> None:
    harness = started_run()
    harness.say(event)
    assert harness.reasons == [reason]
    assert harness.far.kinds == ["agent_started"]


async def test_the_loss_of_a_mission_critical_event_is_logged_critical_with_its_impact() -> None:
    harness = started_run()
    with capture_logs() as logs:
        harness.say(thinking("secret words" * EVENT_MAX), Event(custom=Custom(data_json="{}")))
    critical, normal = [each for each in logs if each["event"] == "an event was rejected"]
    assert (critical["log_level"], critical["criticality"]) == ("critical", "mission_critical")
    assert "what the agent is about to do" in critical["business_impact"]
    assert (normal["log_level"], normal["criticality"]) == ("warning", "normal")
    assert "secret words" not in str(logs)
    assert TOKEN not in str(logs)


async def test_a_flood_of_bad_events_is_answered_in_full_and_logged_in_part() -> None:
    harness = started_run()
    with capture_logs() as logs:
        harness.say(*[completed(f"c{n}") for n in range(500)])
        harness.emitter.close()
    assert len(harness.near.rejections) == 500
    assert len(logs) == LOGGED_PER_RUN + 1
    assert logs[-1]["by_reason"] == {"CALL_NOT_OPEN": 500}


# --- endings -----------------------------------------------------------------------------------


async def test_an_ending_closes_the_calls_that_are_open_in_one_piece_with_itself() -> None:
    harness = started_run()
    harness.say(executing("a", "search"), executing("b", "read"), completed("a"), COMPLETED)
    run_seq, piece = harness.far.pieces[-1]
    abandoned, ending = piece
    assert run_seq == 5
    assert (abandoned.tool_completed.call, abandoned.tool_completed.tool) == ("b", "read")
    assert not abandoned.tool_completed.ok
    assert abandoned.tool_completed.error.reason == "CALL_ABANDONED"
    assert ending.WhichOneof("event") == "agent_completed"


async def test_an_output_over_its_limit_ends_the_run_as_failed() -> None:
    harness = started_run()
    big = AgentCompleted(output_json=json.dumps("x" * OUTPUT_MAX), usage=Usage(output_tokens=7))
    harness.say(Event(agent_completed=big))
    assert harness.reasons == []
    failed = harness.far.events[-1].agent_failed
    assert failed.reason == "OUTPUT_TOO_LARGE"
    assert failed.usage.output_tokens == 7


async def test_an_output_up_to_its_limit_passes_though_events_are_smaller() -> None:
    harness = started_run()
    harness.say(
        Event(agent_completed=AgentCompleted(output_json=json.dumps("x" * (OUTPUT_MAX - 2))))
    )
    assert harness.far.kinds[-1] == "agent_completed"


@pytest.mark.parametrize(
    "ending",
    [
        Event(agent_completed=AgentCompleted(output_json="{oops")),
        Event(agent_completed=AgentCompleted(output_json='"x"', message="no id\n")),
        Event(agent_failed=AgentFailed(reason="lower case", message="m" * EVENT_MAX * 4)),
        Event(agent_cancelled=AgentCancelled(reason="")),
    ],
    ids=["output", "message", "failed", "cancelled"],
)
async def test_an_ending_is_never_rejected(ending: Event) -> None:
    harness = started_run()
    harness.say(ending)
    assert harness.reasons == []
    assert harness.far.kinds[-1] in LIFECYCLE


async def test_a_run_that_has_not_even_begun_is_no_success() -> None:
    harness = Harness()
    harness.say(COMPLETED)
    assert harness.reasons == []
    (ending,) = harness.far.events
    assert ending.agent_failed.reason == "INTERNAL"


async def test_a_large_beginning_is_never_rejected() -> None:
    harness = Harness()
    harness.say(Event(agent_started=AgentStarted(input_json=json.dumps("x" * EVENT_MAX * 3))))
    assert harness.far.kinds == ["agent_started"]


@pytest.mark.parametrize(
    "result", ["x" * EVENT_MAX * 3, ["é\n" * 400] * 10, {"k": "\\" * EVENT_MAX}]
)
async def test_a_tool_result_over_the_limit_is_cut(result: object) -> None:
    harness = started_run()
    harness.say(executing("c1"), completed("c1", result=json.dumps(result)))
    event = harness.far.events[-1]
    assert event.tool_completed.truncated
    assert EVENT_MAX * 0.9 < event.ByteSize() <= EVENT_MAX
    text = json.loads(event.tool_completed.result_json)
    whole = result if isinstance(result, str) else json.dumps(result)
    assert whole.startswith(text)


async def test_a_failure_of_a_tool_over_the_limit_is_cut() -> None:
    harness = started_run()
    failed = completed("c1", result="null")
    failed.tool_completed.error.reason = "TOOL_ERROR"
    failed.tool_completed.error.message = "é" * EVENT_MAX
    harness.say(executing("c1"), failed)
    event = harness.far.events[-1]
    assert event.tool_completed.error.message.startswith("ééé")
    assert event.tool_completed.truncated
    assert event.ByteSize() <= EVENT_MAX


async def test_a_result_is_cleaned_before_it_is_cut() -> None:
    harness = started_run()
    text = "x" * (EVENT_MAX - 120) + SECRET * 40
    harness.say(executing("c1"), completed("c1", result=json.dumps(text)))
    assert "a1B2a1B2" not in harness.far.events[-1].tool_completed.result_json


async def test_a_failure_of_a_tool_is_cleaned_too() -> None:
    harness = started_run()
    error = ToolFailure(reason="BAD_KEY", message=f"refused {SECRET}")
    done = ToolCompleted(call="c1", tool="search", error=error)
    harness.say(executing("c1"), Event(tool_completed=done))
    assert harness.far.events[-1].tool_completed.error.message == f"refused ghp_{MASK}"


# --- the engine's lifecycle token --------------------------------------------------------------


async def test_the_engine_settles_a_run() -> None:
    harness = Harness(scope=Scope.LIFECYCLE)
    harness.settle(Event(agent_failed=AgentFailed(reason="AGENT_LOST", message="m")))
    assert harness.far.kinds == ["agent_failed"]
    assert harness.near.acknowledgements == []
    harness.emitter.opened(0)
    assert harness.near.acknowledgements == []
    harness.durable(0, ended=True)
    assert harness.near.ended


@pytest.mark.parametrize("event", [STARTED, thinking("x"), COMPLETED, delta("x"), executing("c1")])
async def test_the_engine_cannot_speak_for_agents(event: Event) -> None:
    harness = Harness(scope=Scope.LIFECYCLE)
    harness.settle(event)
    assert harness.reasons == ["NOT_ALLOWED"]
    assert harness.far.pieces == []


async def test_lifecycle_events_carry_no_number_and_others_do() -> None:
    harness = Harness(scope=Scope.LIFECYCLE)
    harness.settle(Event(agent_failed=AgentFailed(reason="X")), run_seq=1)
    assert harness.reasons == ["NOT_ALLOWED"]


# --- streamed text -----------------------------------------------------------------------------


async def test_a_secret_over_three_deltas_leaves_as_one_masked_event_with_the_last_number() -> None:
    harness = started_run()
    harness.durable(1)
    harness.say(delta(f"key {SECRET[:10]}"), delta(SECRET[10:30]))
    assert harness.far.kinds == ["agent_started"]
    assert harness.near.acknowledgements == [1]
    harness.say(delta(f"{SECRET[30:]} ok"))
    assert harness.far.pieces[-1][0] == 4
    assert harness.far.events[-1].message_delta.text == f"key ghp_{MASK} ok"
    harness.durable(4)
    assert harness.near.acknowledgements == [1, 4]


async def test_what_is_held_is_not_acknowledged_by_what_comes_before_it() -> None:
    harness = started_run()
    harness.say(delta("a"), delta("ghp_abc"))
    harness.durable(2)
    assert harness.near.acknowledgements == [2]


async def test_an_event_in_between_is_never_delayed_by_what_is_held() -> None:
    harness = started_run()
    harness.say(delta("see ghp_abcdefghij"), thinking("next"), delta(SECRET[14:]))
    kinds = ["agent_started", "message_delta", "agent_thinking"]
    assert harness.far.kinds == kinds
    assert harness.far.events[1].message_delta.text == f"see ghp_{MASK}"


async def test_two_messages_side_by_side_keep_their_texts_apart() -> None:
    harness = started_run()
    harness.say(delta("ghp_", "m1"), thought("hm", "m1"), delta(SECRET[4:] + ".", "m1"), COMPLETED)
    texts = [e.message_delta.text for e in harness.far.events if e.HasField("message_delta")]
    assert "".join(texts) == f"ghp_{MASK}."


async def test_what_is_held_at_the_end_leaves_before_the_ending() -> None:
    harness = started_run()
    harness.say(delta("the prefix is ghp_"), COMPLETED)
    assert harness.far.kinds == ["agent_started", "message_delta", "agent_completed"]
    assert harness.far.events[1].message_delta.text == "the prefix is ghp_"


async def test_a_rejected_event_in_between_releases_nothing() -> None:
    harness = started_run()
    harness.say(delta(SECRET[:20]), completed("unknown"), delta(SECRET[20:] + " "))
    assert harness.far.events[-1].message_delta.text == f"ghp_{MASK} "


async def test_the_output_equals_the_text_that_was_streamed() -> None:
    text = f"Take {SECRET} or postgres://u:pass-word@h/db."
    harness = started_run()
    harness.say(*[delta(char) for char in text])
    done = AgentCompleted(output_json=json.dumps(text), message="m1")
    harness.say(Event(agent_completed=done))
    streamed = "".join(
        e.message_delta.text for e in harness.far.events if e.HasField("message_delta")
    )
    assert json.loads(harness.far.events[-1].agent_completed.output_json) == streamed


async def test_the_run_s_own_token_never_leaves() -> None:
    harness = started_run()
    harness.say(thinking(TOKEN), *[delta(char) for char in f"<{TOKEN}>"])
    harness.say(Event(agent_completed=AgentCompleted(output_json=json.dumps({"t": TOKEN}))))
    assert all(TOKEN[8:] not in str(event) for event in harness.far.events)


PIECES = st.lists(
    st.one_of(
        st.tuples(
            st.just("delta"), st.sampled_from(["m1", "m2"]), st.text("ghp_eyJ. ab12", max_size=9)
        ),
        st.tuples(st.just("thinking"), st.just(""), st.just("hm")),
        st.tuples(st.just("bad"), st.just(""), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(PIECES, st.lists(st.integers(0, 40), max_size=6))
async def test_what_leaves_depends_on_the_events_alone_and_everything_is_acknowledged(
    pieces: list[tuple[str, str, str]], cuts: list[int]
) -> None:
    events: list[Event] = []
    for kind, message, text in pieces:
        events.append(
            delta(text, message)
            if kind == "delta"
            else thinking(text)
            if kind == "thinking"
            else completed("x")
        )
    one, many = started_run(), started_run()
    one.say(*events, COMPLETED)
    for event in [*events, COMPLETED]:
        many.say(event)
        if len(many.far.pieces) in cuts:
            many.durable(many.far.pieces[-1][0])
    strip = [
        [
            (seq, [str(e).split("at {")[0] + str(e.WhichOneof("event")) for e in piece])
            for seq, piece in h.far.pieces
        ]
        for h in (one, many)
    ]
    assert strip[0] == strip[1]
    last = len(events) + 2
    many.durable(last, ended=True)
    assert many.near.acknowledgements[-1] == last
    assert many.near.acknowledgements == sorted(many.near.acknowledgements)
    seqs = [seq for seq, _ in many.far.pieces]
    assert seqs == sorted(set(seqs))


# --- resuming ----------------------------------------------------------------------------------


def resumed(durable: int, in_log: int, *open_calls: str) -> Harness:
    opening = RunOpen(resumed=True, durable_run_seq=durable, open_calls=open_calls)
    harness = Harness(opening)
    harness.emitter.opened(in_log)
    harness.emitter.durable_run_seq = max(durable, in_log)
    return harness


async def test_what_is_durable_already_is_not_sent_again_but_counts_for_the_order() -> None:
    harness = resumed(0, 2)
    harness.say(STARTED, executing("c1"), completed("c1"), completed("c1"))
    assert [run_seq for run_seq, _ in harness.far.pieces] == [3]
    assert harness.near.rejections == [(4, "CALL_NOT_OPEN")]


async def test_a_sender_that_does_not_replay_goes_on_behind_what_is_durable() -> None:
    harness = resumed(0, 5)
    harness.run_seq = 5
    harness.say(thinking("on"))
    assert [run_seq for run_seq, _ in harness.far.pieces] == [6]
    assert harness.near.refusals == []


async def test_calls_that_were_open_are_abandoned_by_the_ending() -> None:
    harness = resumed(3, 3, "c1")
    harness.say(COMPLETED)
    assert harness.far.kinds == ["tool_completed", "agent_completed"]


async def test_a_rejection_of_what_is_durable_is_not_told_again() -> None:
    harness = resumed(0, 2)
    harness.say(STARTED, completed("x"), thinking("on"))
    assert harness.near.rejections == []


async def test_a_hole_in_the_numbers_closes_the_run() -> None:
    harness = started_run()
    harness.emitter.events([(3, thinking("x").SerializeToString())])
    assert [each.reason for each in harness.near.refusals] == ["INVALID_FIELD"]
    assert harness.far.discarded


async def test_an_event_that_comes_twice_leaves_once() -> None:
    harness = started_run()
    raw = thinking("x").SerializeToString()
    harness.emitter.events([(2, raw), (2, raw), (1, raw)])
    assert len(harness.far.pieces) == 2


async def test_what_the_bridge_refuses_is_passed_on() -> None:
    harness = started_run()
    refusal = Refusal("RUN_ENDED", "it has")
    harness.emitter.refused(refusal)
    assert harness.near.refusals == [refusal]
    assert harness.far.discarded
    with pytest.raises(RunEnded):
        await harness.emitter.wait_opened()


async def test_what_the_bridge_rejects_is_told_to_the_agent() -> None:
    harness = started_run()
    harness.emitter.rejected(1, "EVENT_TOO_LARGE", "m")
    assert harness.near.rejections == [(1, "EVENT_TOO_LARGE")]


async def test_nothing_is_left_of_a_closed_emitter() -> None:
    harness = started_run(Limits(EVENT_MAX, OUTPUT_MAX))
    harness.emitter.close()
    harness.emitter.close()
    assert harness.far.discarded
