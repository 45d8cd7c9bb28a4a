"""What agents are made of goes on working inside."""

from __future__ import annotations

import pytest

from factorychain._sandbox.syscalls import machine
from tests.unit._sandbox.attempts import working
from tests.unit._sandbox.confined import Cell


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("abi", [0, 1, 7])
def test_event_loops_run(own: Cell, kind: str, abi: int) -> None:
    came = own.with_abi(abi).attempt(working.loop, kind)
    assert came.value == "heard", came


def test_threads_start_and_join(own: Cell) -> None:
    assert own.attempt(working.threads, 16).value == 16


def test_large_and_mapped_memory(own: Cell) -> None:
    assert own.attempt(working.maps).value == 1


def test_c_calls_python(own: Cell) -> None:
    assert own.attempt(working.calls_back).value == [1, 2, 3]


def test_modules_are_imported_late(own: Cell) -> None:
    names = ["ssl", "sqlite3", "multiprocessing", "aiohttp", "orjson", "factorychain.testing"]
    came = own.attempt(working.imports, *names)
    assert came.value == names, came


def test_certificates_are_found(own: Cell) -> None:
    import ssl

    expected = len(ssl.create_default_context().get_ca_certs())
    assert own.attempt(working.certificates).value == expected


def test_facts_of_the_machine_are_read(own: Cell) -> None:
    came = own.attempt(working.facts)
    assert came.value == [True, True, True, "UTC", 4, True], came


@pytest.mark.skipif(machine() != "x86_64", reason="the other way into the kernel is of x86_64")
def test_calls_by_the_numbers_of_32_bit_are_refused(own: Cell) -> None:
    assert own.attempt(working.audit_architecture).value == "EPERM"
