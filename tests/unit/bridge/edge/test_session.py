"""The protocol of one socket, without one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.ids import Principal
from factorychain.errors import ChainDegraded, TokenExpired, TokenInvalid, UserEngineLimit
from factorychain_bridge.edge.frames import Auth, Call, Subscribe
from factorychain_bridge.edge.outbox import Pong
from factorychain_bridge.edge.outputs import (
    Close,
    CloseCode,
    Do,
    Output,
    Send,
    SessionLimits,
    Verify,
)
from factorychain_bridge.edge.session import Session
from factorychain_bridge.items import StopReason

A, B = Principal("default", "ana"), Principal("default", "ben")


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Fixture:
    """A session with clocks that a test moves."""

    def __init__(self, **limits: Any) -> None:
        self.wall, self.monotonic = Clock(1_763_800_000.0), Clock(50.0)
        self.session = Session(SessionLimits(**limits), self.wall, self.monotonic)

    def pass_s(self, seconds: float) -> list[Output]:
        self.wall.now_s += seconds
        self.monotonic.now_s += seconds
        return self.session.tick()

    def send(self, **frame: Any) -> list[Output]:
        return self.session.receive(orjson.dumps(frame).decode())

    def open(self, principal: Principal = A, ttl_s: float = 3600) -> list[Output]:
        (verify,) = self.send(op="auth", token="x")
        assert isinstance(verify, Verify)
        return self.session.verified(verify.auth, principal, self.wall.now_s + ttl_s)


def frames(outputs: list[Output]) -> list[dict[str, Any]]:
    return [orjson.loads(each.frame) for each in outputs if isinstance(each, Send)]


def code(outputs: list[Output]) -> CloseCode | None:
    return next((each.code for each in outputs if isinstance(each, Close)), None)


# --- auth ------------------------------------------------------------------------------------


def test_a_verified_token_opens_the_session() -> None:
    fixture = Fixture()
    (ready,) = frames(fixture.open())
    assert (ready["op"], ready["tenant"], ready["user"]) == ("ready", "default", "ana")
    assert ready["expires_at"] == "2025-11-22T09:26:40.000Z"
    assert ready["limits"]["frames_per_s"] == 10
    assert fixture.session.principal == A


@pytest.mark.parametrize("error", [TokenInvalid(), TokenExpired()])
def test_a_refused_token_closes(error: TokenInvalid | TokenExpired) -> None:
    fixture = Fixture()
    fixture.send(op="auth", token="x")
    (close,) = fixture.session.unverified(Auth(None, "x"), error)
    assert isinstance(close, Close)
    assert close.code == 4001
    assert close.reason.startswith(error.reason)
    assert fixture.send(op="ping", id="1") == []


def test_a_token_that_has_just_ended_closes() -> None:
    assert code(Fixture().open(ttl_s=0)) == 4001


def test_no_auth_in_time_closes() -> None:
    fixture = Fixture()
    assert fixture.session.tick_in_s() == 10
    assert fixture.pass_s(9.9) == []
    assert code(fixture.pass_s(0.2)) == 4002


def test_a_verification_that_takes_too_long_closes() -> None:
    fixture = Fixture()
    fixture.send(op="auth", token="x")
    assert code(fixture.pass_s(10.1)) == 4002
    assert fixture.session.verified(Auth(None, "x"), A, 2e9) == []


def test_before_auth_operations_are_refused() -> None:
    (reply,) = frames(Fixture().send(op="agents", id="1"))
    assert (reply["id"], reply["error"]["code"]) == ("1", "UNAUTHENTICATED")


def test_frames_behind_the_first_auth_wait_for_its_verdict() -> None:
    fixture = Fixture()
    (verify,) = fixture.send(op="auth", token="x")
    assert isinstance(verify, Verify)
    assert fixture.send(op="ping", id="1") == []
    assert fixture.send(op="agents", id="2") == []
    ready, pong, do = fixture.session.verified(verify.auth, A, fixture.wall.now_s + 60)
    assert [frame["op"] for frame in frames([ready, pong])] == ["ready", "reply"]
    assert isinstance(do, Do)
    assert do.operation.id == "2"


def test_frames_behind_a_refused_auth_do_nothing() -> None:
    fixture = Fixture()
    fixture.send(op="auth", token="x")
    fixture.send(op="agents", id="1")
    outputs = fixture.session.unverified(Auth(None, "x"), TokenInvalid())
    assert code(outputs) == 4001
    assert frames(outputs) == []


def test_what_waits_for_the_verdict_is_bounded() -> None:
    fixture = Fixture(operations_in_hand=3)
    fixture.send(op="auth", token="x")
    outputs: list[Output] = []
    for number in range(4):
        outputs = fixture.send(op="ping", id=str(number))
    assert code(outputs) == 4010


def test_an_identity_provider_that_is_away_is_said() -> None:
    fixture = Fixture()
    fixture.send(op="auth", token="x")
    outputs = fixture.session.unverified(Auth(None, "x"), ChainDegraded("identity provider"))
    assert frames(outputs)[0]["error"]["reason"] == "CHAIN_DEGRADED"
    assert code(outputs) == 1012


def test_a_renewal_moves_the_end_and_keeps_everything() -> None:
    fixture = Fixture()
    fixture.open(ttl_s=40)
    fixture.pass_s(15)
    (verify,) = fixture.send(op="auth", token="y", id="7")
    assert isinstance(verify, Verify)
    (ready,) = frames(fixture.session.verified(verify.auth, A, fixture.wall.now_s + 3600))
    assert (ready["op"], ready["id"]) == ("ready", "7")
    assert fixture.session.token == "y"
    assert fixture.pass_s(100) == []


def test_a_renewal_for_another_user_closes() -> None:
    fixture = Fixture()
    fixture.open(A)
    assert code(fixture.open(B)) == 4001
    assert fixture.session.principal == A


def test_a_renewal_that_cannot_be_verified_now_leaves_the_session_as_it_is() -> None:
    fixture = Fixture()
    fixture.open()
    outputs = fixture.session.unverified(Auth("3", "y"), ChainDegraded("identity provider"))
    assert frames(outputs)[0]["id"] == "3"
    assert code(outputs) is None
    assert fixture.send(op="ping", id="1")


def test_the_end_of_a_token_is_announced_once_and_then_closes() -> None:
    fixture = Fixture()
    fixture.open(ttl_s=100)
    assert fixture.session.tick_in_s() == 70
    assert fixture.pass_s(69) == []
    assert frames(fixture.pass_s(1)) == [{"op": "token_expiring", "in_s": 30}]
    assert fixture.session.tick_in_s() == 30
    assert fixture.pass_s(29) == []
    assert code(fixture.pass_s(1)) == 4001
    assert fixture.session.tick_in_s() is None


# --- operations ------------------------------------------------------------------------------


def test_an_operation_is_to_be_done_and_its_result_is_the_reply() -> None:
    fixture = Fixture()
    fixture.open()
    (do,) = fixture.send(op="subscribe", id="2", thread="t")
    assert do == Do(Subscribe("2", "t", 0, 0))
    assert isinstance(do, Do)
    (reply,) = frames(fixture.session.succeeded(do.operation, {"first": 1}))
    assert reply == {"op": "reply", "id": "2", "result": {"first": 1}}


def test_a_failed_operation_says_why_and_when_to_come_back() -> None:
    fixture = Fixture()
    fixture.open()
    (do,) = fixture.send(op="agents", id="2")
    assert isinstance(do, Do)
    (reply,) = frames(fixture.session.failed(do.operation, UserEngineLimit(2, retry_after_s=3)))
    assert reply["error"] == {
        "code": "RESOURCE_EXHAUSTED",
        "reason": "USER_ENGINE_LIMIT",
        "message": "you have 2 active runs, which is the limit; "
        "wait for one to end, cancel one, or start with on_busy enqueue",
        "retry_after_s": 3,
    }


def test_operations_in_hand_are_bounded() -> None:
    fixture = Fixture(operations_in_hand=2)
    fixture.open()
    (first,), (_,) = fixture.send(op="agents", id="1"), fixture.send(op="agents", id="2")
    (reply,) = frames(fixture.send(op="agents", id="3"))
    assert reply["error"]["reason"] == "OPERATIONS_LIMIT"
    assert isinstance(first, Do)
    fixture.session.succeeded(first.operation, {})
    assert isinstance(fixture.send(op="agents", id="4")[0], Do)


def test_a_ping_is_answered_without_being_done() -> None:
    fixture = Fixture()
    fixture.open()
    assert frames(fixture.send(op="ping", id="1")) == [{"op": "reply", "id": "1", "result": {}}]
    assert fixture.session.in_hand == 0


def test_a_result_after_the_close_is_not_sent() -> None:
    fixture = Fixture()
    fixture.open()
    (do,) = fixture.send(op="agents", id="1")
    fixture.session.stopped(StopReason.SLOW_CONSUMER)
    assert isinstance(do, Do)
    assert fixture.session.succeeded(do.operation, {}) == []
    assert fixture.session.in_hand == 0


# --- limits and endings ----------------------------------------------------------------------


def test_too_many_frames_close() -> None:
    fixture = Fixture(frames_burst=3)
    fixture.open()
    assert code(fixture.send(op="ping", id="1")) is None
    assert code(fixture.send(op="ping", id="2")) is None
    assert code(fixture.send(op="ping", id="3")) == 4010


def test_pings_and_pongs_count_as_frames() -> None:
    fixture = Fixture(frames_burst=2)
    (answer,) = fixture.session.ping(b"x")
    assert isinstance(answer, Send)
    assert isinstance(answer.frame, Pong)
    assert answer.frame == b"x"
    assert fixture.session.pong() == []
    assert code(fixture.session.ping(b"x")) == 4010


@pytest.mark.parametrize(("text", "closes"), [("é" * 8192, False), ("é" * 8193, True)])
def test_before_auth_the_limit_is_in_bytes(text: str, closes: bool) -> None:
    assert (code(Fixture().session.receive(text)) == 4010) is closes


def test_every_ending_has_its_code() -> None:
    def closed(end: str, *arguments: object) -> list[Output]:
        fixture = Fixture()
        fixture.open()
        found: list[Output] = getattr(fixture.session, end)(*arguments)
        assert fixture.session.closed
        assert getattr(fixture.session, end)(*arguments) == []
        return found

    assert code(closed("binary")) == 1002
    assert code(closed("too_big")) == 4010
    assert code(closed("too_many_connections")) == 4009
    assert code(closed("stopped", StopReason.SLOW_CONSUMER)) == 4008
    assert code(closed("stopped", StopReason.PRINCIPAL_MISMATCH)) == 4001
    # Not the client's fault, and nothing that another token would mend.
    assert code(closed("stopped", StopReason.REPLAY_FAILED)) == 1012
    assert code(closed("drained")) == 1012


@pytest.mark.parametrize("why", StopReason)
def test_a_socket_that_is_stopped_sends_nothing_more_and_says_why(why: StopReason) -> None:
    (close,) = Fixture().session.stopped(why)
    assert isinstance(close, Close)
    assert close.at_once
    assert close.reason.startswith(why)


def test_a_drain_says_when_to_come_back() -> None:
    fixture = Fixture()
    fixture.open()
    assert frames(fixture.session.draining(1234)) == [
        {"op": "closing", "reason": "drain", "reconnect_after_ms": 1234}
    ]


def test_close_reasons_fit_into_a_control_frame() -> None:
    fixture = Fixture()
    fixture.send(op="auth", token="x")
    (close,) = fixture.session.unverified(Auth(None, "x"), TokenInvalid("é" * 200))
    assert isinstance(close, Close)
    assert len(close.reason.encode()) <= 123


# --- whatever comes --------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(
            [
                '{"op":"auth","token":"x"}',
                '{"op":"ping","id":"1"}',
                '{"op":"agents","id":"2"}',
                '{"op":"start","id":"3","input":{"text":"x"}}',
                '{"op":"subscribe","id":"4","thread":"t"}',
            ]
        ),
        st.sampled_from(["tick", "verify A", "verify B", "refuse", "done", "binary", "slow"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_invariants_hold_whatever_comes(steps: list[str]) -> None:
    fixture = Fixture(operations_in_hand=4, frames_burst=1000)
    session = fixture.session
    verifying: list[Auth] = []
    doing: list[Any] = []
    owners: set[Principal] = set()
    for step in steps:
        was_closed = session.closed
        outputs: list[Output] = []
        if step == "tick":
            outputs = fixture.pass_s(1)
        elif step.startswith("verify ") and verifying:
            who = A if step.endswith("A") else B
            outputs = session.verified(verifying.pop(), who, fixture.wall.now_s + 20)
        elif step == "refuse" and verifying:
            outputs = session.unverified(verifying.pop(), TokenInvalid())
        elif step == "done" and doing:
            outputs = session.succeeded(doing.pop(), {})
        elif step == "binary":
            outputs = session.binary()
        elif step == "slow":
            outputs = session.stopped(StopReason.SLOW_CONSUMER)
        else:
            outputs = session.receive(step)
        assert not (was_closed and outputs)
        for output in outputs:
            if isinstance(output, Verify):
                verifying.append(output.auth)
            elif isinstance(output, Do):
                assert session.principal is not None
                doing.append(output.operation)
        assert len(doing) == session.in_hand <= 4
        closes = [each for each in outputs if isinstance(each, Close)]
        assert closes == [] or (outputs[-1] is closes[0] and session.closed)
        if session.principal is not None:
            owners.add(session.principal)
    assert len(owners) <= 1
    assert all(isinstance(each, Call | Subscribe) or each.request.input_json for each in doing)
