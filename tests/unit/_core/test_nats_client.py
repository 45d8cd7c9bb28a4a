"""What goes over the wire to NATS, and what comes back."""

from __future__ import annotations

import pytest

from factorychain._core.nats_client import _command, _parse_headers


def test_a_message_without_headers_is_a_plain_publish() -> None:
    assert _command("a.b", b"hello", "in.1", None) == b"PUB a.b in.1 5\r\nhello\r\n"


def test_headers_are_counted_in_bytes() -> None:
    head = "NATS/1.0\r\nName: \u00e9\r\n\r\n".encode()
    sizes = f"{len(head)} {len(head) + 2}".encode()
    assert _command("a", b"xy", "r", {"Name": "\u00e9"}) == b"HPUB a r %b\r\n%bxy\r\n" % (
        sizes,
        head,
    )


@pytest.mark.parametrize("value", ["x\r\nKV-Operation: PURGE", "x\n\nPUB b 0", "x\r"])
def test_a_header_value_cannot_become_another_header_or_command(value: str) -> None:
    command = _command("a", b"", "r", {"Trace": value})
    head = command.split(b"\r\n", 1)[1]
    assert head.split(b"\r\n")[2:] == [b"", b"", b""]
    assert b"\n" not in head.replace(b"\r\n", b"")


def test_headers_and_an_inline_status_are_read() -> None:
    assert _parse_headers(b"NATS/1.0\r\nA: 1\r\nB:two words \r\n\r\n") == {
        "A": "1",
        "B": "two words",
    }
    assert _parse_headers(b"NATS/1.0 503\r\n\r\n") == {"Status": "503"}
    assert _parse_headers(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n") == {
        "Status": "204",
        "Description": "EOB",
        "Nats-Num-Pending": "0",
    }


@pytest.mark.parametrize("raw", [None, b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nno colon\r\n\r\n"])
def test_no_headers_are_none(raw: bytes | None) -> None:
    assert _parse_headers(raw) is None
