"""One tree of errors, each with its reason, that survives a process boundary."""

from __future__ import annotations

import pickle

import pytest

from factorychain import errors
from factorychain.errors import (
    AgentDependencyMissing,
    AgentError,
    FactoryChainError,
    InputTimeout,
    InvalidField,
    ThreadBusy,
    UserEngineLimit,
)
from tests.error_samples import SAMPLES

CLASSES: list[type[FactoryChainError]] = [*FactoryChainError.__subclasses__(), InputTimeout]


def test_every_error_class_has_a_sample_for_these_tests() -> None:
    assert {type(each) for each in SAMPLES} == set(CLASSES)


def test_every_class_has_a_reason_and_a_code_of_its_own() -> None:
    assert len({each.default_reason for each in CLASSES}) == len(CLASSES)
    assert all(each.default_code is not FactoryChainError.default_code for each in CLASSES)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda each: each.reason)
def test_an_error_survives_pickling_with_all_that_it_says(error: FactoryChainError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_an_unknown_reason_is_read_as_the_base_class() -> None:
    assert errors.error_class("FROM_THE_FUTURE") is FactoryChainError
    assert errors.error_class("THREAD_BUSY") is ThreadBusy


def test_an_error_says_which_field_run_or_dependency_it_is_about() -> None:
    assert InvalidField("thread", "is too long").field == "thread"
    assert ThreadBusy("r1").run == "r1"
    missing = AgentDependencyMissing(["dict[str, int]", "Library"])
    assert missing.names == ("dict[str, int]", "Library")
    assert AgentError("later", retryable=True).retryable
    assert not AgentError("never").retryable


@pytest.mark.parametrize("refusal", [ThreadBusy("r1"), UserEngineLimit(1, retry_after_s=3.0)])
def test_who_is_refused_a_place_is_told_that_a_start_can_wait(refusal: FactoryChainError) -> None:
    assert "start with on_busy enqueue" in refusal.message
