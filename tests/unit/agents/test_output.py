"""What agents print, by run."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO, cast

from factorychain._instance.threads import in_thread
from factorychain_agents.output import OutputCapture, RunStream, captured


@contextmanager
def streams() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What passes unchanged, and what is shown with a run."""
    passed, shown = io.StringIO(), io.StringIO()
    with redirect_stdout(cast("TextIO", RunStream("stdout", passed, shown, False))):
        yield passed, shown


def test_lines_of_a_run_carry_its_id_and_others_pass() -> None:
    with streams() as (passed, shown):
        print("outside")
        with captured("r1"):
            print("one\ntwo")
            print("three", end="")
        print("outside again")
    assert passed.getvalue() == "outside\noutside again\n"
    assert shown.getvalue() == "[r1] one\n[r1] two\n[r1] three\n"


async def test_runs_that_print_at_once_are_told_apart_also_in_threads() -> None:
    def in_parts(name: str) -> None:
        sys.stdout.write(f"{name}-")
        sys.stdout.write(f"{name}\n")

    async def one(name: str) -> None:
        with captured(name):
            for _ in range(20):
                sys.stdout.write(f"{name}-")
                await asyncio.sleep(0)
                sys.stdout.write(f"{name}\n")
                await in_thread(in_parts, name)

    with streams() as (_, shown):
        await asyncio.gather(*(one(f"r{number}") for number in range(5)))
    lines = shown.getvalue().splitlines()
    assert len(lines) == 200
    for line in lines:
        run, _, said = line.partition(" ")
        assert said == f"{run[1:-1]}-{run[1:-1]}"


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    with streams() as (_, shown), captured("r1"):
        sys.stdout.write("x" * 100_000)
        assert len(shown.getvalue()) > 100_000


async def test_the_streams_are_given_back() -> None:
    before = sys.stdout, sys.stderr
    capture = OutputCapture(as_json=True)
    await capture.start()
    assert isinstance(sys.stderr, RunStream)
    assert sys.stderr.encoding == before[1].encoding
    await capture.stop()
    assert (sys.stdout, sys.stderr) == before
