"""A supervised process, with real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from factorychain.local.process import ChildProcess, ProcessSpec
from tests.command import alive
from tests.waiting import until, until_true


class Told:
    """What a process says of itself, as the supervisor hears it."""

    def __init__(self, *command: str) -> None:
        self.heard: list[str] = []
        self.child = ChildProcess(
            ProcessSpec("child", command, dict(os.environ)), lambda _, what: self.heard.append(what)
        )

    async def hears(self, count: int) -> Sequence[str]:
        async def enough() -> bool:
            return len(self.heard) >= count

        await until(enough)
        return self.heard


def sleeping(before: str = "") -> list[str]:
    return [sys.executable, "-c", f"{before}\nimport time\ntime.sleep(600)"]


async def test_one_that_is_killed_is_started_again_under_another_pid() -> None:
    told = Told(*sleeping())
    told.child.start()
    first = told.child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await told.hears(3) == ["started", "exited by SIGKILL", "started"]
    assert told.child.pid not in (None, first)
    await told.child.stop(10)


async def test_one_that_is_told_to_stop_is_not_started_again() -> None:
    told = Told(*sleeping())
    told.child.start()
    await told.child.stop(10)
    assert told.heard == ["started", "exited by SIGTERM"]
    assert told.child.pid is None


async def deaf_child(folder: Path) -> Told:
    """Does not listen to SIGTERM."""
    deaf = folder / "deaf"
    code = f"import signal; signal.signal(15, signal.SIG_IGN); open({str(deaf)!r}, 'w')"
    told = Told(*sleeping(code))
    told.child.start()
    await until_true(deaf.exists)
    return told


async def test_one_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    told = await deaf_child(tmp_path)
    await told.child.stop(0.1)
    assert told.heard[-1] == "exited by SIGKILL"


async def test_one_that_does_not_listen_is_killed_to_be_restarted(tmp_path: Path) -> None:
    told = await deaf_child(tmp_path)
    told.child.restart(0.1)
    assert await told.hears(3) == ["started", "exited by SIGKILL", "started"]
    await told.child.stop(10)


async def test_the_grace_of_a_restart_is_not_held_against_the_next_process(tmp_path: Path) -> None:
    told = Told(*sleeping())
    told.child.start()
    told.child.restart(0.2)
    assert await told.hears(3) == ["started", "exited by SIGTERM", "started"]
    await asyncio.sleep(0.4)
    assert told.heard[-1] == "started"
    await told.child.stop(10)


async def test_a_restart_that_is_asked_for_does_not_wait(tmp_path: Path) -> None:
    count = tmp_path / "count"
    told = Told("sh", "-c", f"echo >> {count}; exit 1")
    told.child.restarts.delay_s = 600
    told.child.start()
    assert await told.hears(2) == ["started", "exited with status 1"]
    told.child.restart(10)
    assert (await told.hears(3))[2] == "started"
    await told.child.stop(10)


async def test_a_stop_ends_the_wait_for_a_restart() -> None:
    told = Told("sh", "-c", "exit 1")
    told.child.restarts.delay_s = 600
    told.child.start()
    await told.hears(2)
    async with asyncio.timeout(5):
        await told.child.stop(10)
    assert told.heard == ["started", "exited with status 1"]


async def test_one_does_not_outlive_its_supervisor() -> None:
    code = (
        "import asyncio, os\n"
        "from factorychain.local.process import ChildProcess, ProcessSpec\n"
        "async def main():\n"
        f"    child = ChildProcess(ProcessSpec('child', {sleeping()!r}, dict(os.environ)), print)\n"
        "    child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    lines = [await supervisor.stdout.readline() for _ in range(2)]
    pid = next(int(line) for line in lines if line.strip().isdigit())
    supervisor.kill()
    await supervisor.wait()

    async def gone() -> bool:
        return not alive(pid)

    await until(gone)


_SUPERVISOR = """
import asyncio, os, sys
from factorychain.local.process import ChildProcess, ProcessSpec

async def main(command):
    spec = ProcessSpec("child", command, dict(os.environ))
    ended = asyncio.Event()
    child = ChildProcess(spec, lambda _, what: "exited" in what and ended.set())
    child.start()
    await ended.wait()
    await child.stop(10)

asyncio.run(main(sys.argv[1:]))
"""


def test_it_shares_the_supervisors_session_but_neither_its_terminal_nor_what_is_typed_there(
    tmp_path: Path,
) -> None:
    said = tmp_path / "said"
    look = (
        "import os\n"
        "try: terminal = os.open('/dev/tty', os.O_RDWR) and 'a terminal'\n"
        "except OSError: terminal = 'no terminal'\n"
        f"open({str(said)!r}, 'w').write(f'{{os.getsid(0) == os.getpid()}} {{os.getpgid(0) == os.getpid()}} {{terminal}}')"
    )
    supervisor = [sys.executable, "-c", _SUPERVISOR, sys.executable, "-c", look]
    subprocess.run(
        [sys.executable, "-c", f"import pty, sys; sys.exit(pty.spawn({supervisor!r}))"],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    leads_session, leads_group, terminal = said.read_text().split(maxsplit=2)
    assert (leads_session, leads_group, terminal) == ("False", "True", "no terminal")
