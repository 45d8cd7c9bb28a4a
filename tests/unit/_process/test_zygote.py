"""What is asked of the zygote is answered, whatever becomes of what forks."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

import pytest

from factorychain._process import control
from factorychain._process.control import ForkRequest, Place
from factorychain._process.zygote import _Zygote


def test_places_of_a_forking_process_that_dies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    service, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = cast("Any", None)
    monkeypatch.setattr(_Zygote, "_fork_all", lambda *_: os._exit(3))
    places = tuple(Place(each, f"/nowhere/{each}") for each in (1, 2))
    with service, its:
        control.send(service, ForkRequest(places, "{}").to_json())
        assert _Zygote(its, nothing, os.getpid(), nothing).serve_one()
        for each in places:
            received = control.receive(service)
            assert received is not None
            assert received[0]["failed"] == each.id
