"""Pages: complete, in order, within a message, and bound to whom they were made for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.ids import Principal
from factorychain.errors import InvalidField
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.views.pages import (
    PAGE_MAX_BYTES,
    Cursor,
    Newest,
    cursor_of,
    latest_that_fit,
    page_of,
    page_size,
    token_of,
)

ADA, BOB = Principal("acme", "ada"), Principal("acme", "bob")


@given(
    times=st.lists(st.integers(0, 20), max_size=40),
    size=st.integers(1, 7),
    order=st.randoms(use_true_random=False),
)
def test_pages_show_everything_once_the_newest_first(
    times: list[int], size: int, order: random.Random
) -> None:
    items = [(Cursor(at, f"r{number}"), Run(run=f"r{number}")) for number, at in enumerate(times)]
    order.shuffle(items)
    shown: list[str] = []
    before: Cursor | None = None
    while True:
        newest = Newest[Run](size, before)
        for cursor, run in items:
            newest.offer(cursor, run)
        page = newest.page()
        shown += [run.run for run in page.items]
        assert len(page.items) <= size
        if page.last is None:
            break
        before = cursor_of(ADA, "runs", token_of(ADA, "runs", page.last))
    assert shown == [run.run for _, run in sorted(items, key=lambda each: each[0], reverse=True)]


def test_a_page_fits_into_a_message() -> None:
    big = [(Cursor(at, "r"), Run(input_json="x" * (PAGE_MAX_BYTES // 2))) for at in range(3)]
    page = page_of(big, 50)
    assert len(page.items) == 1
    assert page.last == Cursor(0, "r")
    huge = page_of([(Cursor(1, "r"), Run(input_json="x" * PAGE_MAX_BYTES * 2))], 50)
    assert len(huge.items) == 1


def test_the_latest_that_fit_stay_in_their_order() -> None:
    runs = [Run(run=f"r{number}") for number in range(5)]
    assert [run.run for run in latest_that_fit(runs, 3)] == ["r2", "r3", "r4"]
    big = Run(run="big", input_json="x" * PAGE_MAX_BYTES)
    assert latest_that_fit([*runs, big], 3) == [big]
    assert latest_that_fit([], 3) == []


def test_a_token_is_bound_to_principal_and_listing() -> None:
    token = token_of(ADA, "runs", Cursor(7, "r1"))
    assert cursor_of(ADA, "runs", token) == Cursor(7, "r1")
    for principal, listing in ((BOB, "runs"), (ADA, "threads")):
        with pytest.raises(InvalidField, match="page_token"):
            cursor_of(principal, listing, token)


@pytest.mark.parametrize("token", ["x", "é", "AAAA", "====", "A" * 400])
def test_tokens_that_were_never_made_are_refused(token: str) -> None:
    with pytest.raises(InvalidField, match="page_token"):
        cursor_of(ADA, "runs", token)


def test_page_sizes() -> None:
    assert (page_size(0, 50), page_size(3, 50), cursor_of(ADA, "runs", "")) == (50, 3, None)
    with pytest.raises(InvalidField, match="page_size"):
        page_size(1001, 50)
