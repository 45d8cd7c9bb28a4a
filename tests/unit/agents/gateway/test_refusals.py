"""What the gateway refuses with is what the run's ending says, in every protocol."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from factorychain._instance.model_troubles import trouble_of
from factorychain_agents.gateway.budgets import Exhausted
from factorychain_agents.gateway.refusals import Form, Refusal, unavailable, used_up

FORMS: tuple[Form, ...] = ("chat", "responses", "messages")


class Raised(Exception):
    """As libraries raise it: with the body, or its error, or the response."""

    def __init__(self, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__("something else")
        self.body = body
        self.response = SimpleNamespace(headers=headers)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_carries_the_reason_through(form: Form) -> None:
    refusal = Refusal(429, "MODEL_RATE_LIMITED", retry_after_s=7.5)
    body = orjson.loads(refusal.body(form))
    event = orjson.loads(refusal.frame(form, 4).partition(b"data: ")[2])
    for each in (body, body["error"], event, event["error"]):
        found = trouble_of(Raised(each))
        assert found is not None
        assert (found.reason, found.retryable, found.retry_after_s) == (
            "MODEL_RATE_LIMITED",
            True,
            7.5,
        )
    from_headers = trouble_of(Raised(headers=refusal.headers()))
    assert from_headers is not None
    assert (from_headers.reason, from_headers.retry_after_s) == ("MODEL_RATE_LIMITED", 8)
    assert refusal.headers()["x-should-retry"] == "false"


def test_the_last_event_of_each_protocol_is_one_of_its_own() -> None:
    refusal = unavailable()
    assert refusal.frame("chat").startswith(b'data: {"error":{')
    assert refusal.frame("messages").startswith(b'event: error\ndata: {"type":"error","error":{')
    numbered = orjson.loads(refusal.frame("responses", 4).partition(b"data: ")[2])
    assert (numbered["type"], numbered["sequence_number"]) == ("error", 4)
    assert all(refusal.frame(form).endswith(b"\n\n") for form in FORMS)


def test_what_lies_behind_an_error_is_found_and_what_is_not_ours_is_not() -> None:
    ours = Raised(orjson.loads(unavailable().body("chat")))
    try:
        try:
            raise ours
        except Raised as error:
            raise RuntimeError("a framework's own") from error
    except RuntimeError as wrapped:
        group = ExceptionGroup("several", [ValueError(), wrapped])
    found = trouble_of(group)
    assert found is not None
    assert found.reason == "MODEL_UNAVAILABLE"
    others: tuple[BaseException, ...] = (
        ValueError("x"),
        Raised({"error": {"factorychain": {"reason": "MADE_UP"}}}),
        Raised({"error": {"factorychain": "MODEL_UNAVAILABLE"}}),
        Raised(headers={"x-factorychain-reason": "made up"}),
        Raised("text"),
    )
    assert [trouble_of(each) for each in others] == [None] * len(others)


def test_only_our_own_texts_are_passed_to_users() -> None:
    body = orjson.loads(Refusal(503, "MODEL_UNAVAILABLE", "of the author's concern").body("chat"))
    body["error"]["message"] = "anything"
    found = trouble_of(Raised(body))
    assert found is not None
    assert found.text == "The model cannot be reached right now; try again later"


def test_a_budget_says_whose_it_is_and_when_it_is_renewed() -> None:
    of_run = used_up(Exhausted("run", "tokens", 100, None))
    of_user = used_up(Exhausted("user", "requests", 5, 60.0))
    assert (of_run.status, of_run.reason, of_run.retryable) == (429, "BUDGET_EXHAUSTED", False)
    assert "100 tokens" in of_run.message
    assert (of_user.retryable, of_user.retry_after_s) == (True, 60.0)
