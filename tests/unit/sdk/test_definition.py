"""Reading agents' classes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from factorychain import Agent, Input, RunContext
from factorychain._instance.definition import BadAgent, define
from factorychain._instance.needs import Needs
from factorychain.errors import InvalidField


class Topping(BaseModel):
    """A topping."""

    name: str


class Order(BaseModel):
    """An order."""

    size: int
    toppings: list[Topping] = []


class OrderPizza(Agent):
    """Takes an order.

    And bakes it.
    """

    repeat_safe = True
    lifetime_s = 20.0

    async def run(self, ctx: RunContext, order: Order) -> int:
        return order.size


def test_a_class_says_its_name_description_and_limits() -> None:
    found = define(OrderPizza)
    assert found.name == "order-pizza"
    assert found.description == "Takes an order.\n\nAnd bakes it."
    assert (found.repeat_safe, found.lifetime_s, found.is_async) == (True, 20.0, True)


def test_the_input_schema_describes_the_whole_input_and_resolves() -> None:
    schema = define(OrderPizza).input_schema
    assert schema["required"] == ["data"]
    assert isinstance(schema["$defs"], dict)
    assert set(schema["$defs"]) == {"Topping"}
    assert isinstance(schema["properties"], dict)
    data = schema["properties"]["data"]
    assert isinstance(data, dict)
    assert "$defs" not in data


def test_a_model_is_validated_from_data_or_from_text_that_is_json() -> None:
    definition = define(OrderPizza)
    expected = Order(size=3, toppings=[Topping(name="olives")])
    as_json = '{"size": 3, "toppings": [{"name": "olives"}]}'
    assert definition.argument(f'{{"data": {as_json}}}') == expected
    escaped = as_json.replace('"', '\\"')
    assert definition.argument(f'{{"text": "{escaped}"}}') == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('{"text": "a big one"}', "takes an object"),
        ('{"data": {"size": "huge"}}', "size: Input should be a valid integer"),
        ('{"data": null}', "Input should be"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_without_its_values(given: str, says: str) -> None:
    with pytest.raises(InvalidField, match=says) as caught:
        define(OrderPizza).argument(given)
    assert caught.value.field == "input.data"
    assert "huge'" not in caught.value.message


def test_text_and_input_are_handed_over_as_annotated() -> None:
    class Text(Agent):
        async def run(self, ctx: RunContext, text):  # type: ignore[no-untyped-def]
            return text

    class Whole(Agent):
        async def run(self, ctx: RunContext, given: Input) -> None: ...

    class Nothing(Agent):
        def run(self, ctx: RunContext) -> None: ...

    assert define(Text).argument('{"text": "a"}') == "a"
    assert isinstance(define(Whole).argument('{"text": "a"}'), Input)
    assert not define(Nothing).is_async


def test_classes_that_cannot_be_agents_are_refused_with_what_to_mend() -> None:
    class NoRun(Agent):
        pass

    class Yields(Agent):
        async def run(self, ctx: RunContext, text: str) -> AsyncIterator[str]:
            yield text

    class Many(Agent):
        async def run(self, ctx: RunContext, one: str, two: str) -> None: ...

    class Odd(Agent):
        async def run(self, ctx: RunContext, given: list[int]) -> None: ...

    class Unreadable(Agent):
        async def run(self, ctx: RunContext, given: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    class Named(Agent):
        name = "Not A Name"

        async def run(self, ctx: RunContext) -> None: ...

    for cls, says in (
        (NoRun, "needs a method"),
        (Yields, "must not yield"),
        (Many, "nothing else"),
        (Odd, "use str, Input or a pydantic model"),
        (Unreadable, "cannot be read"),
        (Named, "must be a-z"),
    ):
        with pytest.raises(BadAgent, match=says):
            define(cls)


class Plain(Agent):
    async def run(self, ctx: RunContext) -> None: ...


def declaring(**attributes: object) -> type[Agent]:
    return type("Declares", (Plain,), attributes)


def test_an_agent_that_declares_nothing_leaves_everything_to_the_operator() -> None:
    assert define(Plain).needs == Needs()


def test_what_a_class_declares_is_read_each_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    found = define(
        declaring(
            isolation="task",
            memory_bytes=1 << 30,
            cpu_s=2.5,
            lifetime_s=60,
            read_paths=["/data", "docs", Path("~/models"), "/data"],
            network_ports=(443, 5432, 443),
            env={"API_KEY"},
            processes=True,
        )
    )
    assert found.needs == Needs(
        isolation="task",
        memory_bytes=1 << 30,
        cpu_s=2.5,
        lifetime_s=60,
        read_paths=("/data", f"{tmp_path}/docs", "/home/ada/models"),
        network_ports=(443, 5432),
        env=("API_KEY",),
        processes=True,
    )
    assert found.lifetime_s == 60


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("isolation", "thread", "isolation is 'thread'; use 'process' or 'task'"),
        ("memory_bytes", -1, "memory_bytes is -1"),
        ("memory_bytes", "1 GiB", "use a number above 0, or 0 for the operator's limit"),
        ("cpu_s", float("inf"), "cpu_s is inf"),
        ("cpu_s", True, "cpu_s is True"),
        ("lifetime_s", float("nan"), "lifetime_s is nan"),
        ("read_paths", "/data", "read_paths is '/data'; use a list"),
        ("read_paths", [""], "read_paths: '' is no path"),
        ("network_ports", 443, "network_ports is 443; use a list"),
        ("network_ports", [0], "network_ports: 0 is no TCP port; use 1 to 65535"),
        ("network_ports", ["https"], "'https' is no TCP port"),
        ("env", ["A=1"], "env: 'A=1' is no name of a variable"),
        ("env", ["FACTORYCHAIN_LISTEN"], "belongs to the chain"),
        ("processes", 3, "processes is 3; use True or False"),
    ],
)
def test_a_declaration_without_meaning_is_refused_by_name(
    name: str, value: object, says: str
) -> None:
    with pytest.raises(BadAgent, match=says):
        define(declaring(**{name: value}))
