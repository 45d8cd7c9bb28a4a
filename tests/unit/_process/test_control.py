"""What service and zygote tell each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from factorychain._process import control
from factorychain._process.control import AgentSource, ForkRequest, Place, Prepared, Setup


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_whole_with_their_descriptors(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    reading, writing = os.pipe()
    control.send(ends[0], {"forked": 3}, [reading, writing])
    control.send(ends[0], {"failed": 4})
    message, fds = control.receive(ends[1]) or ({}, [])
    assert message == {"forked": 3}
    os.write(fds[1], b"same pipe")
    assert os.read(reading, 100) == b"same pipe"
    assert not any(os.get_inheritable(each) for each in fds)
    assert control.receive(ends[1]) == ({"failed": 4}, [])
    control.close([reading, writing, *fds])


def test_the_end_of_the_other_side_is_told(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    assert control.receive(ends[1]) is None


def test_what_is_told_arrives_as_it_was() -> None:
    setup = Setup(("/a", "/b"), {"KEY": "value"}, (AgentSource("five", "m", "C.D"),))
    assert Setup.from_json(setup.to_json()) == setup
    request = ForkRequest((Place(1, "/x/1"), Place(2, "/x/2")), "{}")
    assert ForkRequest.from_json(request.to_json()) == request
    prepared = Prepared({"five": ["m.Missing"]}, {"six": "threads"})
    assert Prepared.from_json(prepared.to_json()) == prepared
