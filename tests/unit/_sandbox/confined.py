"""One attempt inside a confined process, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from factorychain._sandbox import Confinement, compose_environment
from tests.unit._sandbox.expected import needs_landlock

CHILD = Path(__file__).with_name("child.py")
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Came:
    """What an attempt came to."""

    exit: int
    """Of the process; below 0: the signal that ended it."""
    value: object = None
    error: str = ""
    errno: int | None = None
    message: str = ""
    hint: str = ""
    missing: tuple[str, ...] = ()


class Parent:
    """A process that attempts are forked from."""

    def __init__(self, pass_fds: Iterable[int] = (), **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
            pass_fds=tuple(pass_fds),
            text=True,
        )

    def ask(self, request: dict[str, object]) -> Came:
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(json.dumps(request) + "\n")
        asking.flush()
        said = json.loads(answering.readline())
        return Came(missing=tuple(said.pop("missing", ())), **said)

    def close(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


@dataclass(frozen=True, slots=True)
class Cell:
    """Where attempts are made: a confinement that a test varies."""

    parent: Parent
    confinement: Confinement
    abi: int | None = None

    def with_(self, **changes: object) -> Cell:
        return replace(self, confinement=replace(self.confinement, **changes))  # type: ignore[arg-type]

    def with_abi(self, abi: int) -> Cell:
        """As if the kernel had only this version of Landlock."""
        needs_landlock(abi)
        return replace(self, abi=abi)

    @property
    def directory(self) -> Path:
        return Path(self.confinement.directory)

    def attempt(self, what: Callable[..., object], *arguments: object) -> Came:
        """Calls a function of `attempts` in a process that was confined before."""
        return self.parent.ask(
            {
                "confinement": self.confinement.to_json(),
                "abi": self.abi,
                "module": what.__module__,
                "attempt": what.__name__,
                "arguments": arguments,
            }
        )


def cell(parent: Parent, directory: Path) -> Cell:
    environment = compose_environment({"PATH": os.environ["PATH"]}, (), str(directory))
    return Cell(parent, Confinement(directory=str(directory), environment=environment))
