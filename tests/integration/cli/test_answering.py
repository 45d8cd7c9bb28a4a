"""Questions of agents at a terminal, and answered from elsewhere."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess

import pytest

from tests.command import Up
from tests.waiting import until_true

pytestmark = pytest.mark.asyncio(loop_scope="session")


_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A command at a terminal: what it shows, and what is typed."""

    def __init__(self, up: Up, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = ""
        data = ("--user", "ada", "--data", str(up.data))
        self.process = subprocess.Popen(
            [*up.command.argv, *arguments, *data],
            cwd=up.command.cwd,
            env=up.command.environment({"TERM": "xterm"}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def _read(self) -> None:
        try:
            read = os.read(self._ours, 65536).decode(errors="replace")
            self.shown += _ESCAPES.sub("", read)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._ours)

    async def shows(self, text: str) -> None:
        try:
            await until_true(lambda: text in self.shown, 20)
        except TimeoutError:
            raise AssertionError(self.shown) from None

    def type(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    async def ended(self) -> int:
        status = await asyncio.to_thread(self.process.wait, 30)
        await asyncio.sleep(0)
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        return status


async def test_a_question_is_asked_at_the_terminal_until_the_answer_fits(up: Up) -> None:
    terminal = Terminal(up, "run", "--agent", "asks", "now")
    await terminal.shows("How many?")
    terminal.type("several")
    await terminal.shows("is not of type 'integer'")
    terminal.type("3")
    await terminal.shows("Really?  [y/n]")
    terminal.type("y")
    await terminal.shows("3 it is")
    assert await terminal.ended() == 0


async def test_what_a_run_ended_with_is_asked_and_the_next_run_is_shown(up: Up) -> None:
    terminal = Terminal(up, "run", "--agent", "asks", "later")
    await terminal.shows("Which city?")
    terminal.type("Turin")
    await terminal.shows("resumed with Turin")
    assert await terminal.ended() == 0


async def test_without_a_terminal_it_says_how_to_answer_and_respond_does(up: Up) -> None:
    data = ("--user", "ada", "--data", str(up.data))
    asked = await up.command("run", *data, "--agent", "asks", "later")
    assert asked.status == 0
    assert "Which city?" in asked.err
    found = re.search(r"respond --user ada (r\w+) city VALUE", asked.err)
    assert found is not None, asked.err
    answered = await up.command("respond", *data, found[1], "city", "Oslo")
    assert (answered.status, answered.out) == (0, "resumed with Oslo\n")
    again = await up.command("respond", *data, found[1], "city", "Rome")
    assert again.status == 2
    assert "REQUEST_ANSWERED" in again.err
