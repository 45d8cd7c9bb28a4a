"""What the agents of one process share: made once, and what of it a fork could not use."""

from __future__ import annotations

import asyncio
import mmap
import socket
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from factorychain import Agent, RunContext, shared
from factorychain._instance.application import ApplicationScope, build_application_scope
from factorychain._instance.definition import define


class Index: ...


class Library:
    def __init__(self, index: Index) -> None:
        self.index = index


class Reader(Agent):
    def __init__(self, library: Library) -> None:
        self.library = library

    async def run(self, ctx: RunContext, text: str) -> None: ...


class Writer(Reader):
    """In another module."""


class Plain(Agent):
    async def run(self, ctx: RunContext, text: str) -> None: ...


def module_with(*providers: object) -> types.ModuleType:
    module: Any = types.ModuleType("agents_of_a_test")
    module.providers = list(providers)
    return module  # type: ignore[no-any-return]


async def library_of(scope: ApplicationScope, agent: str) -> Library:
    found = scope.agents[agent]
    async with found.injection.scope(object.__new__(RunContext)) as run:
        made: Any = await run.agent(found.definition.cls)
        return made.library  # type: ignore[no-any-return]


async def test_what_two_modules_list_is_made_once_and_closed_last() -> None:
    said: list[str] = []

    @shared
    async def index() -> AsyncIterator[Index]:
        said.append("index")
        yield Index()
        said.append("index closed")

    @shared
    async def library(index: Index) -> AsyncIterator[Library]:
        said.append("library")
        yield Library(index)
        said.append("library closed")

    @shared
    async def other(index: Index) -> AsyncIterator[Library]:
        said.append("other")
        yield Library(index)
        said.append("other closed")

    scope = ApplicationScope()
    await scope.add(module_with(index, library), [define(Reader)])
    await scope.add(module_with(library, index), [define(Writer)])
    await scope.add(module_with(index, other), [define(Plain)])
    assert await library_of(scope, "reader") is await library_of(scope, "writer")
    await scope.add(module_with(index, other), [define(Reader)])
    assert (await library_of(scope, "reader")).index is (await library_of(scope, "writer")).index
    assert [each.provider.rpartition(".")[2] for each in scope.built] == said
    await scope.close()
    assert said[3:] == ["other closed", "library closed", "index closed"]
    await scope.close()


async def test_a_provider_of_other_things_makes_its_own() -> None:
    def named(text: str) -> Callable[[], str]:
        @shared
        def name() -> str:
            return text

        return name

    @shared
    def library(name: str) -> Library:
        made = Library(Index())
        made.index.__dict__["name"] = name
        return made

    scope = ApplicationScope()
    await scope.add(module_with(named("a"), library), [define(Reader)])
    await scope.add(module_with(named("b"), library), [define(Writer)])
    assert (await library_of(scope, "reader")).index.__dict__["name"] == "a"
    assert (await library_of(scope, "writer")).index.__dict__["name"] == "b"
    await scope.close()


async def test_the_scope_of_agents_is_built_from_their_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @shared
    def library() -> Library:
        return Library(Index())

    monkeypatch.setattr(sys.modules[__name__], "providers", [library], raising=False)
    scope = await build_application_scope([define(Reader), define(Plain)])
    assert scope.missing == {"reader": (), "plain": ()}
    assert [each.provides for each in scope.built] == [f"{__name__}.Library"]
    await scope.close()


class Kept(Library):
    """Holds on to something."""

    def __init__(self, held: object) -> None:
        super().__init__(Index())
        self.held = held


async def held(make: Callable[[], object]) -> ApplicationScope:
    @shared
    async def index() -> Index:
        return Index()

    @shared
    async def make_library(index: Index) -> Library:
        return Kept(make())

    scope = ApplicationScope()
    await scope.add(module_with(index, make_library), [define(Reader), define(Plain)])
    assert scope.missing["reader"] == ()
    return scope


async def problem(make: Callable[[], object]) -> str:
    scope = await held(make)
    assert scope.agents["plain"].fork_problems == ()
    problems = scope.agents["reader"].fork_problems
    await scope.close()
    assert len(problems) <= 1
    if problems:
        assert problems[0].startswith(f"{__name__}.held.make_library makes a {__name__}.Library ")
    return problems[0] if problems else ""


async def test_a_thread_is_named() -> None:
    ended = threading.Event()

    def start() -> threading.Thread:
        thread = threading.Thread(target=ended.wait, name="refresher")
        thread.start()
        return thread

    try:
        assert "it started 1 thread (refresher)" in await problem(start)
    finally:
        ended.set()


async def test_a_socket_and_a_file_are_named_and_a_mapped_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "index.bin"
    file.write_bytes(b"x" * 4096)
    with ExitStack() as kept:
        opened = await problem(lambda: kept.enter_context(socket.socket()))
        assert "it keeps open: a socket" in opened
        assert f"it keeps open: {file}" in await problem(
            lambda: kept.enter_context(file.open("rb"))
        )
        number = kept.enter_context(file.open("rb")).fileno()
        assert await problem(lambda: mmap.mmap(number, 0, prot=mmap.PROT_READ)) == ""


async def test_what_belongs_to_the_event_loop_is_named() -> None:
    class Client:
        def __init__(self) -> None:
            self.settings: dict[str, object] = {"loop": asyncio.get_running_loop()}

    assert f"bound to an event loop: {__name__}." in await problem(Client)
    assert "Client" in await problem(Client)
    future = await problem(lambda: asyncio.get_running_loop().create_future())
    assert "_asyncio.Future" in future
    tasks: list[asyncio.Task[bool]] = []

    def start() -> None:
        waiting = asyncio.create_task(asyncio.Event().wait(), name="refresh")
        tasks.append(waiting)

    assert "task refresh" in await problem(start)
    tasks[0].cancel()


async def test_plain_data_functions_and_locks_are_fit_for_a_fork() -> None:
    def make() -> object:
        return [{"a": range(3)}, make, threading.Lock(), asyncio.Lock(), {1: object()}]

    assert await problem(make) == ""


def test_native_threads_count() -> None:
    # In a process of its own, with a thread that Python knows nothing of, as numerical libraries have.
    code = (
        "import asyncio, ctypes, os\n"
        "from factorychain._instance.footprint import Footprint\n"
        "libc = ctypes.CDLL(None)\n"
        "async def main():\n"
        "    before = Footprint.now()\n"
        "    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None)\n"
        "    print(before.left_by(None))\n"
        "    os._exit(0)\n"
        "import sys; sys.stdout.reconfigure(line_buffering=True)\n"
        "asyncio.run(main())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("it started 1 thread")
