"""What a client may not do, and what it is told."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
import urllib.request

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from factorychain._core.keys import TxnKey
from tests.e2e.chain import Chain
from tests.e2e.sockets import connected, raw_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    return {
        "sub": "mallory", "aud": "factorychain-api", "iat": now, "exp": now + 600
    } | changes  # fmt: skip


def _bad_tokens(chain: Chain) -> dict[str, str]:
    secret = chain.data.user_secret
    public = chain.data.txn_jwks_file.read_bytes()
    engine_key = TxnKey.parse(chain.data.txn_key)
    txn_header = {"typ": "txntoken+jwt", "kid": engine_key.kid}
    return {
        "rubbish": "rubbish",
        "empty": "",
        "expired": jwt.encode(_claims(exp=int(time.time()) - 60), secret, "HS256"),
        "another audience": jwt.encode(_claims(aud="someone-else"), secret, "HS256"),
        "another key": jwt.encode(_claims(), b"k" * 32, "HS256"),
        "another kind": jwt.encode(_claims(), engine_key.private, "EdDSA", headers=txn_header),
        "another kind, with the user's key": jwt.encode(
            _claims(), secret, "HS256", headers=txn_header
        ),
        "a key of its own": jwt.encode(_claims(), Ed25519PrivateKey.generate(), "EdDSA"),
        "the public key as a secret": _hmac(_claims(), public),
        "alg none": jwt.encode(_claims(), "", "none"),
        "no subject": jwt.encode(
            {k: v for k, v in _claims().items() if k != "sub"}, secret, "HS256"
        ),
    }


def _hmac(claims: dict[str, object], secret: bytes) -> str:
    """HS256 without the library's own care about what is used as a secret."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header = json.dumps({"alg": "HS256", "typ": "JWT"})
    signed = f"{part(header.encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"


async def test_bad_tokens_close_the_socket_with_4001(chain: Chain) -> None:
    for kind, token in _bad_tokens(chain).items():
        async with raw_socket(chain.state.edge) as socket:
            await socket.send({"op": "auth", "token": token})
            assert await socket.closed() == 4001, kind


async def test_a_good_token_is_accepted_and_can_be_renewed_for_the_same_user_only(
    chain: Chain,
) -> None:
    async with connected(chain.state.edge, chain.token("renee")) as socket:
        await socket.send({"op": "auth", "token": chain.token("renee", ttl_s=900)})
        started = await socket.start("echo", "still here", thread="renewed")
        await socket.ending(started["run"])
        await socket.send({"op": "auth", "token": chain.token("someone-else")})
        assert await socket.closed() == 4001


async def test_operations_before_auth_are_refused(chain: Chain) -> None:
    async with raw_socket(chain.state.edge) as socket:
        await socket.send({"op": "start", "id": "1", "input": {"text": "x"}})
        await socket.closed()
        assert socket.close_code in (4001, 4002)


async def test_malformed_frames_do_not_disturb_others(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("calm")) as calm:
        started = await calm.start("steps", "30:10", thread="calm")
        async with connected(chain.state.edge, chain.token("wild")) as wild:
            assert (await wild.error("no_such_op"))["reason"]
            await wild.send({"op": "start", "id": 7, "input": {"text": "x"}})
            await wild.wait_for(lambda f: f["op"] == "error")
            assert (await wild.error("start", input={"text": 1}))["code"] == "INVALID_ARGUMENT"
            assert (await wild.error("start", input=[]))["code"] == "INVALID_ARGUMENT"
            bad_thread = await wild.error("start", thread="a b", input={"text": "x"})
            assert bad_thread["code"] == "INVALID_ARGUMENT"
            since = len(wild.frames)
            await wild.ws.send_str("{not json")
            await wild.wait_for(lambda f: f["op"] == "error", since=since)
            await wild.result("ping")
            await wild.ws.send_bytes(b"\x00")
            assert await wild.closed() == 1002
        async with connected(chain.state.edge, chain.token("wild")) as wild:
            await wild.ws.send_str(json.dumps({"op": "ping", "id": "x", "pad": "x" * 400_000}))
            assert await wild.closed() == 4010
        ending = await calm.ending(started["run"])
    assert ending["type"] == "agent_completed"


async def test_unknown_fields_are_ignored_and_ping_answers(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("pia")) as socket:
        await socket.result("ping", something="new")


async def test_refusals_say_what_where_and_when_to_try_again(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("greedy")) as socket:
        runs = [await socket.start("waits", "600", thread=f"g{index}") for index in range(2)]
        refused = await socket.error("start", agent="echo", input={"text": "x"}, thread="g3")
        assert (refused["code"], refused["reason"]) == ("RESOURCE_EXHAUSTED", "USER_ENGINE_LIMIT")
        assert refused["retry_after_s"] > 0
        missing = await socket.error("start", agent="nobody", input={"text": "x"})
        assert (missing["code"], missing["reason"]) == ("NOT_FOUND", "AGENT_NOT_FOUND")
        await socket.result("cancel", run=runs[1]["run"])
        busy = await socket.error("start", agent="echo", input={"text": "x"}, thread="g0")
        assert (busy["code"], busy["reason"]) == ("FAILED_PRECONDITION", "THREAD_BUSY")
        lacking = await socket.error("start", agent="needs-missing", input={"text": "x"})
        assert lacking["reason"] == "AGENT_DEPENDENCY_MISSING"
        assert "Missing" in lacking["message"]
        interrupted = await socket.start("echo", "now", thread="g0", on_busy="interrupt")
        ended = await socket.ending(runs[0]["run"])
        assert (ended["type"], ended["data"]["reason"]) == ("agent_cancelled", "INTERRUPTED")
        await socket.ending(interrupted["run"])


async def test_the_same_request_again_finds_the_same_run(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("again")) as socket:
        first = await socket.start("echo", "once", request_id="r-1")
        second = await socket.start("echo", "once", request_id="r-1")
        assert (first["run"], first["thread"]) == (second["run"], second["thread"])
        await socket.ending(first["run"])
        third = await socket.start("echo", "once", request_id="r-1")
        assert third["run"] == first["run"]
        other = await socket.error("start", agent="echo", input={"text": "x"}, request_id="r-1")
        assert other["code"] == "INVALID_ARGUMENT"
        await asyncio.sleep(0)
        kinds = [event["type"] for event in socket.run_events(first["run"])]
    assert kinds.count("agent_started") == 1


async def test_the_edge_answers_health_and_hands_out_tokens_in_development(chain: Chain) -> None:
    def get(path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(chain.state.edge + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()

    assert (await asyncio.to_thread(get, "/healthz"))[0] == 200
    assert (await asyncio.to_thread(get, "/readyz"))[0] == 200
    status, body = await asyncio.to_thread(get, "/v1/dev/token", b'{"user":"devon"}')
    assert status == 200
    async with connected(chain.state.edge, json.loads(body)["token"]) as socket:
        ready = next(frame for frame in socket.frames if frame["op"] == "ready")
    assert (ready["tenant"], ready["user"]) == ("default", "devon")
