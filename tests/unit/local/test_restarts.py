"""When a process that died is started again."""

from __future__ import annotations

import signal

import pytest

from factorychain.local.process import Restarts, describe_exit


def test_the_delay_doubles_up_to_its_most() -> None:
    restarts = Restarts()
    delays = []
    for _ in range(8):
        restarts.started(100.0)
        delays.append(restarts.next_delay_s(100.1))
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert restarts.count == 8


def test_a_long_life_resets_it_and_a_short_one_does_not() -> None:
    restarts = Restarts(delay_s=3.2)
    restarts.started(100.0)
    assert restarts.next_delay_s(119.9) == 3.2
    restarts.started(200.0)
    assert restarts.next_delay_s(220.0) == 0.2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "with status 0"),
        (2, "with status 2"),
        (-signal.SIGKILL, "by SIGKILL"),
        (-99, "by signal 99"),
    ],
)
def test_an_exit_is_told_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words
