"""What goes wrong at vendors is tried again where that is safe, and else is an ending that says what it was."""

from __future__ import annotations

import socket
import time

import pytest

from tests.integration.gateway.conftest import Place, Start
from tests.integration.gateway.reading import failure, output, said, usage
from tests.vendor import Fault, Turn, Vendor

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAMED = ("talker", "responder_here", "claude_here")


_AGAIN = {
    "limited": Fault(status=429, retry_after="0.2"),
    "fails": Fault(status=500),
    "overloaded": Fault(status=529),
    "hangs up": Fault(refuse=True),
    "cut": Fault(cut_after=0),
    "malformed": Fault(malformed_after=0),
    "error": Fault(error_after=0),
}


@pytest.mark.parametrize("kind", _AGAIN)
async def test_what_got_no_answer_is_asked_again(here: Place, kind: str) -> None:
    for agent in STREAMED if kind in ("cut", "error") else ("talker",):
        here.vendor.requests.clear()
        here.vendor.script(Turn(fault=_AGAIN[kind]), Turn(text=["a", "b"]))
        events = await here.chain.run(here.chain.token(agent), "hi")
        assert output(events) == "ab"
        assert usage(events) == (10, 5, 0, 0, 1), "what came to nothing is not counted"
        first, second = here.vendor.requests
        assert second.at_s - first.at_s >= (0.2 if _AGAIN[kind].retry_after else 0.1)


async def test_without_a_stream_a_broken_answer_is_asked_for_again(here: Place) -> None:
    here.vendor.script(
        Turn(fault=Fault(refuse=True)), Turn(fault=Fault(status=503)), Turn(text="c")
    )
    assert output(await here.chain.run(here.chain.token("threaded"), "hi")) == "c"
    assert len(here.vendor.requests) == 3


async def test_it_is_asked_no_more_often_than_the_operator_says(here: Place) -> None:
    here.vendor.always = lambda request: Turn(fault=Fault(status=503, message="secret plans"))
    events = await here.chain.run(here.chain.token("talker"), "hi")
    assert failure(events).reason == "MODEL_UNAVAILABLE"
    assert failure(events).retryable
    assert "secret plans" not in failure(events).message
    assert usage(events) == (0, 0, 0, 0, 0)
    assert len(here.vendor.requests) == 3


async def test_a_vendor_that_wants_too_much_patience_is_an_ending_with_its_time(
    here: Place,
) -> None:
    here.vendor.script(Turn(fault=Fault(status=429, retry_after="21")))
    failed = failure(await here.chain.run(here.chain.token("talker"), "hi"))
    assert (failed.reason, failed.retryable, failed.retry_after_s) == (
        "MODEL_RATE_LIMITED",
        True,
        21,
    )
    assert len(here.vendor.requests) == 1


async def test_no_request_waits_beyond_the_end_of_its_run(here: Place) -> None:
    here.vendor.script(Turn(fault=Fault(status=429, retry_after="15")))
    token = here.chain.token("talker", deadline_s=time.time() + 10)
    failed = failure(await here.chain.run(token, "hi"))
    assert failed.reason == "MODEL_RATE_LIMITED"


async def test_a_key_that_the_vendor_refuses_is_the_operators_trouble(
    start: Start, vendor: Vendor
) -> None:
    async with start(llm_api_key="sk-canary-0123456789") as chain:
        failed = failure(await chain.run(chain.token("talker"), "hi"))
    assert (failed.reason, failed.retryable) == ("MODEL_CREDENTIAL_REFUSED", False)
    assert "operator's key" in failed.message
    assert len(vendor.requests) == 1


_IN_ITS_MIDDLE = {
    "cut": Fault(cut_after=5),
    "malformed": Fault(malformed_after=5),
    "error": Fault(error_after=5),
    "silent": Fault(silent_after=5),
}


@pytest.mark.parametrize("kind", _IN_ITS_MIDDLE)
async def test_a_stream_that_goes_wrong_in_its_middle_ends_the_run_with_what_was_said(
    here: Place, kind: str
) -> None:
    for agent in STREAMED:
        here.vendor.requests.clear()
        text = ["abcd", "efgh", "ijkl", "mnop", "q"]
        here.vendor.script(Turn(text=text, gap_s=0.005, fault=_IN_ITS_MIDDLE[kind]))
        events = await here.chain.run(here.chain.token(agent), "x" * 400)
        failed = failure(events)
        assert (failed.reason, failed.retryable) == ("MODEL_UNAVAILABLE", True)
        assert said(events).startswith("abcd") or agent == "responder_here"
        assert len(here.vendor.requests) == 1
        counted = usage(events)
        assert counted[4] == 1
        assert counted[0] >= (10 if agent == "claude_here" else 100), "estimated if not counted"


async def test_a_vendor_that_never_answers_is_given_up(here: Place) -> None:
    here.vendor.script(Turn(fault=Fault(hang=True)))
    failed = failure(await here.chain.run(here.chain.token("talker"), "hi"))
    await here.vendor.until(lambda: here.vendor.requests[0].disconnected_at_s is not None)
    assert failed.reason == "MODEL_UNAVAILABLE"
    assert len(here.vendor.requests) == 1, "it may be at work: asking again would double that"


async def test_a_vendor_that_is_not_there_is_an_ending(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with start(llm_base_url=f"http://127.0.0.1:{port}/v1", llm_retries=1) as chain:
        failed = failure(await chain.run(chain.token("talker"), "hi"))
    assert (failed.reason, failed.retryable) == ("MODEL_UNAVAILABLE", True)


async def test_redirects_lead_nowhere(here: Place, vendor: Vendor) -> None:
    moved = Fault(status=307, location=f"{vendor.openai_url}/chat/completions")
    here.vendor.script(Turn(fault=moved))
    failed = failure(await here.chain.run(here.chain.token("talker"), "hi"))
    assert failed.reason == "MODEL_UNAVAILABLE"
    assert vendor.requests == []


async def test_what_the_vendor_finds_wrong_with_a_request_its_author_reads(
    here: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    message = f"bad tools, says {here.vendor.key}"
    here.vendor.script(Turn(fault=Fault(status=400, message=message)))
    failed = failure(await here.chain.run(here.chain.token("talker"), "hi"))
    assert (failed.reason, failed.retryable) == ("MODEL_REQUEST_REFUSED", False)
    assert "bad tools" not in failed.message
    printed = "".join(capfd.readouterr())
    assert "bad tools, says [removed]" in printed
    assert here.vendor.key not in printed


async def test_answers_and_requests_are_bounded(here: Place) -> None:
    large = failure(await here.chain.run(here.chain.token("talker"), "x" * 20_000))
    assert large.reason == "MODEL_REQUEST_INVALID"
    assert here.vendor.requests == []
    for agent in ("talker", "threaded"):
        here.vendor.script(Turn(text=["y" * 5000] * 10))
        cut = failure(await here.chain.run(here.chain.token(agent), "hi"))
        assert cut.reason == "MODEL_UNAVAILABLE"


async def test_requests_of_one_run_wait_for_one_another_beyond_their_number(here: Place) -> None:
    here.vendor.always = lambda request: Turn(text="a", gap_s=0.05)
    assert output(await here.chain.run(here.chain.token("crowd"), "6")) == 6
    at_once = [
        sum(other.at_s <= each.at_s < (other.ended_at_s or 0) for other in here.vendor.requests)
        for each in here.vendor.requests
    ]
    assert max(at_once) == 2
