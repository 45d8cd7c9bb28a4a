"""Reading agents' classes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from factorychain import Agent, Input, RunContext
from factorychain._instance.definition import BadAgent, define
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
