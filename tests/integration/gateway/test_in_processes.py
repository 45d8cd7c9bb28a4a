"""Real clients in real run processes reach models through the gateway, and never hold a vendor's key."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from factorychain._core.ids import Principal
from factorychain.agents.v1 import agents_pb2 as pb
from tests.integration.agents.conftest import metadata
from tests.integration.gateway.conftest import Place
from tests.integration.gateway.reading import ending, failure, output, said, usage
from tests.vendor import Fault, Received, Turn, VendorUsage

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = ("talker", "early", "threaded", "responder", "claude")


@pytest.mark.parametrize("agent", CLIENTS)
async def test_every_client_finds_the_gateway(place: Place, agent: str) -> None:
    place.vendor.script(Turn(text=["Hel", "lo"], usage=VendorUsage(11, 7, 3, 2)))
    events = await place.chain.run(place.chain.token(agent), "hi")
    assert output(events) == "Hello"
    assert usage(events) == (11, 7, 3, 0 if agent == "claude" else 2, 1)
    (request,) = place.vendor.requests
    assert request.key == place.vendor.key
    assert "fc-" not in str(request.headers)
    assert "traceparent" not in request.headers


async def test_what_is_no_library_finds_it_too(place: Place) -> None:
    listed = json.loads(output(await place.chain.run(place.chain.token("urllib"))))
    assert [each["id"] for each in listed["data"]] == list(place.vendor.models)


async def test_runs_have_keys_of_their_own(place: Place) -> None:
    rings = [output(await place.chain.run(place.chain.token("keyring"))) for _ in range(3)]
    assert len({ring["OPENAI_API_KEY"] for ring in rings}) == len(rings)
    assert all(ring["ANTHROPIC_API_KEY"] == ring["OPENAI_API_KEY"] for ring in rings)
    assert place.vendor.key not in str(rings)


async def test_what_runs_say_at_once_is_answered_and_counted_for_each_alone(place: Place) -> None:
    def counted(request: Received) -> Turn:
        number = int(request.last_user_text)
        return Turn(text=[f"{number} "] * 5, usage=VendorUsage(number, 5), gap_s=0.005)

    place.vendor.always = counted

    async def one(number: int) -> None:
        user = Principal("acme", f"user{number % 5}")
        token = place.chain.token(("talker", "early", "responder")[number % 3], principal=user)
        events = await place.chain.run(token, str(number))
        assert output(events) == f"{number} " * 5
        assert usage(events) == (number, 5, 0, 0, 1)

    await asyncio.gather(*(one(number) for number in range(1, 13)))


async def test_a_key_is_worth_nothing_after_its_run_nor_is_a_guess(place: Place) -> None:
    ring = output(await place.chain.run(place.chain.token("keyring")))
    for key in (ring["OPENAI_API_KEY"], "fc-run-guessed", "fc-key-of-the-run", place.vendor.key):
        events = await place.chain.run(place.chain.token("guesser"), key)
        # The placeholder becomes the run's own key where it is sent: it is no guess.
        if key == "fc-key-of-the-run":
            assert output(events) == "You said: hi"
        else:
            assert failure(events).reason == "GATEWAY_KEY_INVALID"
    assert len(place.vendor.requests) == 1


@pytest.mark.parametrize("agent", ["talker", "early", "threaded", "claude", "stubborn"])
async def test_a_cancel_reaches_the_vendor_at_once(place: Place, agent: str) -> None:
    seen_s = [await _cancelled(place, agent)]
    while min(seen_s) >= 0.1 and len(seen_s) < 5:  # the machine may be busy with something else
        seen_s.append(await _cancelled(place, agent))
    print(f"{agent}: the vendor saw it {min(seen_s) * 1000:.1f} ms after the call of Cancel")
    assert min(seen_s) < 0.1


async def _cancelled(place: Place, agent: str) -> float:
    """How long a cancel in the middle of an answer took to the vendor."""
    vendor, chain = place.vendor, place.chain
    vendor.requests.clear()
    streamed = agent != "threaded"
    silent = Fault(silent_after=5) if streamed else Fault(hang=True)
    vendor.script(Turn(text=["12345678"] * 9, usage=VendorUsage(40, 18), fault=silent))
    token = chain.token(agent)
    reading = asyncio.create_task(_kinds(chain.execute(token, "x" * 80)))
    await vendor.until(lambda: bool(vendor.requests) and vendor.requests[0].frames == 5 * streamed)
    cancelled_at_s = time.monotonic()
    await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(token))
    await vendor.until(lambda: vendor.requests[0].disconnected_at_s is not None)
    await reading
    events = chain.log.events(token.run)
    assert ending(events).reason == "USER"
    # What the vendor has not counted is estimated: it is not free to hang up before the end.
    assert usage(events)[0] >= 20
    assert usage(events)[4] == 1
    return (vendor.requests[0].disconnected_at_s or 0) - cancelled_at_s


async def test_a_run_that_fails_says_what_it_has_used(place: Place) -> None:
    place.vendor.script(Turn(text="once", usage=VendorUsage(3, 4)), Turn(fault=Fault(status=400)))
    events = await place.chain.run(place.chain.token("repeater"), "2")
    assert failure(events).reason == "MODEL_REQUEST_REFUSED"
    assert usage(events) == (3, 4, 0, 0, 1)


@pytest.mark.parametrize("agent", CLIENTS)
async def test_what_happened_at_the_vendor_is_the_ending_through_any_library(
    place: Place, agent: str
) -> None:
    place.vendor.script(Turn(fault=Fault(status=429, retry_after="77")))
    failed = failure(await place.chain.run(place.chain.token(agent), "hi"))
    assert (failed.reason, failed.retryable) == ("MODEL_RATE_LIMITED", True)
    assert failed.retry_after_s == 77
    assert "too many requests" in failed.message
    assert len(place.vendor.requests) == 1, "clients do not try again what was tried here"


@pytest.mark.parametrize("agent", [each for each in CLIENTS if each != "threaded"])
async def test_a_stream_that_breaks_off_is_told_through_any_library(
    place: Place, agent: str
) -> None:
    place.vendor.script(Turn(text=["a", "b", "c", "d"], fault=Fault(cut_after=4)))
    events = await place.chain.run(place.chain.token(agent), "hi")
    assert failure(events).reason == "MODEL_UNAVAILABLE"
    assert failure(events).retryable
    assert len(place.vendor.requests) == 1, "something was passed on: it is not asked again"


async def test_a_service_gets_the_secret_of_the_user_and_the_run_never_sees_it(
    place: Place,
) -> None:
    for tenant, user, secret in (
        ("acme", "ada", "secret-of-ada"),
        ("acme", "bob", "secret-of-acme"),
        ("other", "ada", "secret-of-all"),
    ):
        token = place.chain.token("caller", principal=Principal(tenant, user))
        answer = output(await place.chain.run(token, "tracker /issues?q=a%2Fb"))
        assert answer["status"] == 200
        assert '"path": "/api/issues?q=a%2Fb"' in answer["body"]
        assert '"secret": "Bearer [removed]"' in answer["body"], "it was repeated by the service"
        request = place.vendor.requests[-1]
        assert request.headers["authorization"] == f"Bearer {secret}"
        assert request.body == {"a": 1}
        assert "cookie" not in request.headers


async def test_a_service_of_another_user_is_not_there(place: Place) -> None:
    ada = place.chain.token("caller")
    assert output(await place.chain.run(ada, "private /x"))["status"] == 200
    assert place.vendor.requests[-1].headers["x-token"] == "t private-of-ada"
    for name in ("private", "nothing"):
        bob = place.chain.token("caller", principal=Principal("acme", "bob"))
        told = output(await place.chain.run(bob, f"{name} /x"))
        assert told.startswith(f"no credential is called {name!r} for this user")
        assert "there are: claude, default, small, tracker" in told
    # Nor by the path itself, with a key that is good.
    bob = place.chain.token("wanderer", principal=Principal("acme", "bob"))
    failed = failure(await place.chain.run(bob, "POST /../c/private/x"))
    assert failed.reason == "CREDENTIAL_NOT_FOUND"
    assert len(place.vendor.requests) == 1


async def test_nothing_but_the_service_is_below_its_name(place: Place) -> None:
    for path in ("/../v1/models", "/%2e%2e/v1/models", "/a/..%2f..%2fv1/models"):
        answer = output(await place.chain.run(place.chain.token("caller"), f"tracker {path}"))
        sent = [each.path for each in place.vendor.requests]
        assert answer["status"] in (400, 404), path
        assert all(each.startswith("/api") for each in sent), path


async def test_a_tool_call_is_the_parent_of_the_requests_in_it(place: Place) -> None:
    events = await place.chain.run(place.chain.token("tooled"), "hi")
    assert said(events) == ""
    assert output(events) == "You said: hi"


async def _kinds(stream: object) -> list[str]:
    return [each.WhichOneof("life") async for each in stream]  # type: ignore[attr-defined]
