"""Every way in which the edge closes a socket, or refuses to open one."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import aiohttp
import pytest

from factorychain._core.ids import Principal
from factorychain.errors import ChainDegraded
from factorychain_bridge.items import Events
from tests.integration.edge.chain import Chain, Peer
from tests.integration.edge.hub import batch
from tests.integration.edge.people import AUDIENCE, A, B, token
from tests.waiting import until_true


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "a.b.c",
        "",
        token(A, audience="somebody-else"),
        token(A, secret=b"x" * 32),
        token(A, ttl_s=-60),
        # {"alg":"none"} with the right claims and no signature.
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbmEiLCJhdWQiOiJmYWN0b3J5Y2hhaW4iLCJleHAiOjQxMDI0NDQ4MDB9.",
    ],
)
async def test_a_token_that_does_not_verify_closes_4001(chain: Chain, bad: str) -> None:
    peer = await chain.connect()
    await peer.send(op="auth", token=bad)
    code, reason, frames = await peer.closed()
    assert (code, frames) == (4001, [])
    assert reason.startswith("TOKEN_")


async def test_nothing_works_before_auth_and_no_auth_closes_4002(start_chain: Any) -> None:
    chain: Chain = await start_chain(auth_timeout_s=0.2)
    peer = await chain.connect()
    reply = await peer.ask(op="agents", id="1")
    assert reply["error"]["code"] == "UNAUTHENTICATED"
    code, _, _ = await peer.closed()
    assert code == 4002


async def test_operations_sent_right_behind_the_first_auth_are_carried_out(chain: Chain) -> None:
    peer = await chain.connect()
    await peer.send(op="auth", token=token())
    await peer.send(op="ping", id="1")
    assert (await peer.next())["op"] == "ready"
    assert (await peer.next())["id"] == "1"


async def test_a_token_is_renewed_without_losing_anything(chain: Chain) -> None:
    peer = await chain.login()
    await peer.ask(op="subscribe", id="1", thread="t1")
    await peer.next()
    assert (await peer.ask(op="auth", token=token(A, 7200)))["op"] == "ready"
    chain.hub.say(A, "t1", "r1", "still here")
    assert (await peer.next())["op"] == "events"


async def test_another_users_token_on_a_live_socket_closes_4001(chain: Chain) -> None:
    peer = await chain.login(A)
    await peer.send(op="auth", token=token(B))
    code, _, _ = await peer.closed()
    assert code == 4001
    await until_true(lambda: not chain.edge.sockets)


async def test_a_token_that_ends_is_announced_and_then_closes_4001(chain: Chain) -> None:
    peer = await chain.connect()
    await peer.send(op="auth", token=token(A, ttl_s=1.9))
    assert (await peer.next())["op"] == "ready"
    expiring = await peer.next()
    assert (expiring["op"], expiring["in_s"] <= 2) == ("token_expiring", True)
    code, reason, _ = await peer.closed()
    assert (code, "TOKEN_EXPIRED" in reason) == (4001, True)


async def test_a_client_that_does_not_read_is_closed_4008_and_stalls_nobody(
    start_chain: Any,
) -> None:
    chain: Chain = await start_chain(queue_bytes=64 * 1024)
    slow, quick = await chain.login(), await chain.login()
    for peer in (slow, quick):
        await peer.ask(op="subscribe", id="1", thread="t1")
        await peer.next()
    connection = slow.ws._conn
    assert connection is not None
    slow_transport = connection.transport
    assert isinstance(slow_transport, asyncio.Transport)
    slow_transport.pause_reading()
    seen = 0
    while chain.edge.sockets == 2 and seen < 2000:
        chain.hub.say(A, "t1", "r1", "x" * 30_000)
        assert (await quick.next())["events"][0]["seq"] == seen + 1
        seen += 1
        if chain.hub.open_subscriptions() == 1:
            break
    assert chain.hub.open_subscriptions() == 1
    slow_transport.resume_reading()
    code, _, frames = await slow.closed()
    assert code == 4008
    seqs = [event["seq"] for frame in frames for event in frame["events"]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) < seen
    chain.hub.say(A, "t1", "r1", "after")
    assert (await quick.next())["op"] == "events"


async def test_one_socket_too_many_closes_4009_and_a_free_place_is_taken(start_chain: Any) -> None:
    chain: Chain = await start_chain(sockets_per_user=2)
    first = await chain.login()
    await chain.login()
    third = await chain.connect()
    await third.send(op="auth", token=token())
    assert (await third.closed())[0] == 4009
    await chain.login(B)
    await first.ws.close()
    await until_true(lambda: chain.edge.sockets == 2)
    await chain.login()


@pytest.mark.parametrize(("authenticated", "size"), [(False, 16_385), (True, 327_681)])
async def test_a_frame_over_the_limit_closes_4010(
    chain: Chain, authenticated: bool, size: int
) -> None:
    peer = await (chain.login() if authenticated else chain.connect())
    await peer.ws.send_str("x" * size)
    assert (await peer.closed())[0] == 4010
    await until_true(lambda: not chain.edge.sockets)


async def test_a_huge_frame_closes_4010_while_it_is_still_being_sent(chain: Chain) -> None:
    peer = await chain.login()
    # 8 MiB are never buffered: the announced length is enough.
    await peer.ws.send_str("x" * 8 * 1024 * 1024)
    assert (await peer.closed())[0] == 4010


async def test_a_frame_at_the_limit_is_taken(chain: Chain) -> None:
    peer = await chain.login()
    frame = b'{"op":"ping","id":"1","pad":"%s"}'
    pad = b"x" * (327_680 - len(frame) + 2)
    await peer.ws.send_str((frame % pad).decode())
    assert (await peer.next())["id"] == "1"


@pytest.mark.parametrize("kind", ["text", "ping"])
async def test_too_many_frames_close_4010(start_chain: Any, kind: str) -> None:
    chain: Chain = await start_chain(frames_per_s=0.001, frames_burst=5)
    peer = await chain.login()
    for number in range(5):
        if kind == "text":
            await peer.send(op="ping", id=str(number))
        else:
            await peer.ws.ping()  # answered by pongs, which aiohttp's client keeps to itself
    code, _, frames = await peer.closed()
    assert (code, len(frames)) == (4010, 4 if kind == "text" else 0)


async def test_a_binary_frame_closes_1002(chain: Chain) -> None:
    peer = await chain.login()
    await peer.ws.send_bytes(b'{"op":"ping","id":"1"}')
    assert (await peer.closed())[0] == 1002


async def raw(chain: Chain, frame: bytes) -> int:
    """Sends bytes of our own making on an upgraded connection; answers the close code."""
    host, port = chain.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.write(frame)
    head = await reader.readexactly(2)
    assert head[0] == 0x88, head
    payload = await reader.readexactly(head[1])
    writer.close()
    await writer.wait_closed()
    code: int = struct.unpack("!H", payload[:2])[0]
    return code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # text that is not UTF-8
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that does not exist
    ],
)
async def test_bytes_that_are_no_websocket_close_1002_or_1007(
    chain: Chain, frame: bytes, code: int
) -> None:
    assert await raw(chain, frame) == code


async def test_a_drain_says_when_to_come_back_and_closes_1012(chain: Chain) -> None:
    peers = [await chain.login(Principal("t", f"u{number}")) for number in range(8)]
    stopping = asyncio.create_task(chain.edge.stop())
    ends = await asyncio.gather(*(peer.closed() for peer in peers))
    await stopping
    assert {code for code, _, _ in ends} == {1012}
    waits = [frames[-1]["reconnect_after_ms"] for _, _, frames in ends]
    assert all(frames[-1]["op"] == "closing" for _, _, frames in ends)
    assert len(set(waits)) > 1
    assert chain.edge.sockets == 0


async def test_a_breach_closes_the_socket_before_anything_is_written(chain: Chain) -> None:
    peer = await chain.login(A)
    await peer.ask(op="subscribe", id="1", thread="t1")
    await peer.next()
    # The fake hub checks nothing: this is the edge's own comparison.
    chain.hub.deliver(A, "t1", Events(batch(B, "t1", "r1", 1, "canary"), 0))
    code, _, frames = await peer.closed()
    assert (code, frames) == (4001, [])


async def test_live_traffic_that_is_away_at_auth_closes_1012(chain: Chain) -> None:
    chain.hub.failure = ChainDegraded("nats")
    peer = await chain.connect()
    await peer.send(op="auth", token=token())
    code, _, frames = await peer.closed()
    assert (code, frames[0]["error"]["reason"]) == (1012, "CHAIN_DEGRADED")
    await until_true(lambda: not chain.edge.sockets)
    chain.hub.failure = None
    await chain.login()


# --- before the upgrade ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "mode", "allowed"),
    [
        ("https://chat.example", "production", True),
        ("https://chat.example.evil.test", "production", False),
        ("https://evil.test", "production", False),
        ("http://chat.example", "production", False),
        ("https://chat.example:8443", "production", False),
        ("null", "production", False),
        ("http://localhost:3000", "production", False),
        ("http://localhost:3000", "development", True),
        ("http://127.0.0.1:3000", "development", True),
        ("http://[::1]:3000", "development", True),
        ("http://localhost.evil.test", "development", False),
        ("http://127.0.0.1.evil.test", "development", False),
        ("http://localhost@evil.test", "development", False),
        (None, "production", True),
    ],
)
async def test_origins_are_compared_exactly(
    start_chain: Any, origin: str | None, mode: str, allowed: bool
) -> None:
    chain: Chain = await start_chain(mode=mode)
    headers = {} if origin is None else {"Origin": origin}
    if allowed:
        await chain.login(headers=headers)
    else:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await chain.connect(headers=headers)
        assert refused.value.status == 403


async def test_a_client_of_another_protocol_is_refused(chain: Chain) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await chain.connect(protocols=("graphql-ws",))
    assert refused.value.status == 400


async def test_a_client_that_names_no_protocol_is_served(chain: Chain) -> None:
    await chain.login(protocols=())


async def test_deflate_is_not_negotiated(chain: Chain) -> None:
    peer: Peer = await chain.connect(compress=15)
    assert peer.ws.compress == 0


def test_the_audience_of_these_tests_is_the_default() -> None:
    assert AUDIENCE == "factorychain"
