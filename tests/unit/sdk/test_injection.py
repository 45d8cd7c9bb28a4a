"""What agents are made from."""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from dishka import Provider, Scope, provide

from factorychain import Agent, AgentError, RunContext, shared
from factorychain._instance.definition import define
from factorychain._instance.injection import Injection
from factorychain.errors import AgentDependencyMissing
from factorychain.testing import run


class Index:
    def __init__(self, number: int) -> None:
        self.number = number


class Library:
    def __init__(self, index: Index, user: str) -> None:
        self.index = index
        self.user = user


class Clock:
    """Nothing provides it."""


class Reader(Agent):
    def __init__(self, library: Library, limit: int = 5, clock: Clock | None = None) -> None:
        self.library = library
        self.limit = limit

    async def run(self, ctx: RunContext, text: str) -> list[object]:
        return [self.library.user, self.library.index.number, self.limit]


class NeedsClock(Agent):
    def __init__(self, clock: Clock, library: Library) -> None: ...

    async def run(self, ctx: RunContext, text: str) -> None: ...


class Bare(Agent):
    async def run(self, ctx: RunContext, text: str) -> str:
        return "made of nothing"


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.count = 0

    def module(self, *extra: object) -> types.ModuleType:
        @shared
        async def make_index() -> AsyncIterator[Index]:
            self.count += 1
            yield Index(self.count)
            self.said.append("index closed")

        def make_library(index: Index, ctx: RunContext, shelf: int = 3) -> Iterator[Library]:
            self.said.append(f"library of {ctx.user} opened")
            yield Library(index, ctx.user)
            self.said.append(f"library of {ctx.user} closed")

        return module_with(make_index, make_library, *extra)


def module_with(*providers: object) -> types.ModuleType:
    module: Any = types.ModuleType("agents_of_a_test")
    module.providers = list(providers)
    return module  # type: ignore[no-any-return]


class FakeContext(RunContext):
    """Only a user."""

    def __init__(self, user: str) -> None:
        self._user = user

    @property
    def user(self) -> str:
        return self._user


async def test_shared_things_are_made_once_and_others_for_each_run_and_closed_at_its_end() -> None:
    log = Log()
    definition = define(Reader)
    injection = Injection(log.module(), [definition])
    await injection.start()
    assert injection.missing == {"reader": ()}
    assert log.count == 1
    for user in ("ada", "bob"):
        async with injection.scope(FakeContext(user)) as scope:
            agent = await scope.agent(Reader)
            assert isinstance(agent, Reader)
            assert (agent.library.user, agent.library.index.number) == (user, 1)
    await injection.close()
    assert log.said == [
        "library of ada opened",
        "library of ada closed",
        "library of bob opened",
        "library of bob closed",
        "index closed",
    ]


async def test_everything_that_is_missing_is_named_and_others_can_start() -> None:
    def needs_more(clock: Clock, number: float) -> Library:
        raise AssertionError

    injection = Injection(module_with(needs_more), [define(NeedsClock), define(Bare)])
    await injection.start()
    assert set(injection.missing["needs-clock"]) == {f"{__name__}.Clock", "float"}
    assert injection.missing["bare"] == ()
    await injection.close()


async def test_a_shared_thing_that_cannot_be_made_is_missing_with_its_reason_if_it_has_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @shared
    def unusable() -> Index:
        raise AgentError("the folder is empty")

    @shared
    def broken() -> Clock:
        raise ValueError("a password of the code")

    def library(index: Index) -> Library:
        raise AssertionError

    injection = Injection(
        module_with(unusable, broken, library), [define(NeedsClock), define(Reader), define(Bare)]
    )
    await injection.start()
    assert injection.missing["reader"] == (f"{__name__}.Index: the folder is empty",)
    assert len(injection.missing["needs-clock"]) == 2
    assert "a password" not in str(injection.missing)
    assert "a password" in capsys.readouterr().err
    assert injection.missing["bare"] == ()
    await injection.close()


async def test_dishka_providers_work_beside_functions() -> None:
    class Mine(Provider):
        scope = Scope.REQUEST

        @provide
        def clock(self) -> Clock:
            return Clock()

    injection = Injection(Log().module(Mine()), [define(NeedsClock)])
    await injection.start()
    assert injection.missing == {"needs-clock": ()}
    await injection.close()


async def test_what_needs_a_broken_thing_is_not_tried_and_the_broken_one_is_named_once() -> None:
    log = Log()

    @shared
    def index() -> Index:
        log.count += 1
        raise AgentError("the folder is empty")

    @shared
    def library(index: Index) -> Library:
        raise AssertionError

    injection = Injection(module_with(library, index), [define(Reader)])
    await injection.start()
    assert injection.missing["reader"] == (f"{__name__}.Index: the folder is empty",)
    assert log.count == 1
    assert [each.failure for each in injection.built] == list(injection.missing["reader"])


async def test_something_shared_that_needs_the_run_is_refused_with_that_reason() -> None:
    @shared
    def index(ctx: RunContext) -> Index:
        raise AssertionError

    injection = Injection(module_with(index), [define(Bare)])
    await injection.start()
    assert "made for each run" in injection.missing["bare"][0]


@pytest.mark.parametrize(
    ("provider", "says"),
    [(5, "neither a function nor a dishka provider"), (lambda: 5, "needs a return annotation")],
)
async def test_providers_that_cannot_be_understood_are_named(provider: object, says: str) -> None:
    injection = Injection(module_with(provider), [define(Bare)])
    await injection.start()
    assert says in injection.missing["bare"][0]


async def test_a_constructor_without_annotations_is_named() -> None:
    class Unclear(Agent):
        def __init__(self, thing) -> None: ...  # type: ignore[no-untyped-def]

        async def run(self, ctx: RunContext, text: str) -> None: ...

    injection = Injection(None, [define(Unclear)])
    await injection.start()
    assert "annotate its parameter 'thing'" in injection.missing["unclear"][0]


def test_overrides_replace_what_is_provided_and_fill_what_is_missing() -> None:
    library = Library(Index(9), "fake")
    assert run(Reader, "x", overrides={Library: library}).output == ["fake", 9, 5]
    with pytest.raises(AgentDependencyMissing) as caught:
        run(Reader, "x")
    assert caught.value.names == (f"{__name__}.Library",)


async def test_the_first_run_finds_the_code_that_makes_its_agent_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    injection = Injection(Log().module(), [define(Reader)])
    await injection.start()

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("compiled in a run")

    monkeypatch.setattr("dishka.registry.compile_factory", too_late)
    async with injection.scope(FakeContext("ada")) as scope:
        assert isinstance(await scope.agent(Reader), Reader)
    await injection.close()


async def test_an_agent_is_made_as_the_one_that_it_inherits_from_another_module_unless_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def library(ctx: RunContext) -> Library:
        return Library(Index(1), "the base's")

    def other(ctx: RunContext) -> Library:
        return Library(Index(2), "its own")

    base = module_with(library)
    monkeypatch.setitem(sys.modules, base.__name__, base)
    inherited = type("Inherited", (Reader,), {})
    monkeypatch.setattr(Reader, "__module__", base.__name__)
    for module, expected in ((None, "the base's"), (module_with(other), "its own")):
        injection = Injection(module, [define(inherited)])
        await injection.start()
        async with injection.scope(FakeContext("ada")) as scope:
            made: Any = await scope.agent(inherited)
            assert made.library.user == expected
        await injection.close()
