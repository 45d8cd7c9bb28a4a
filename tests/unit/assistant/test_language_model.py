"""What the operator has set of the model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from factorychain import AgentError
from factorychain.builtin.assistant import Assistant, LanguageModel
from factorychain.errors import AgentDependencyMissing
from factorychain.testing import run

MODEL = {"FACTORYCHAIN_LLM_MODEL": "gpt-test", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}


def test_defaults() -> None:
    assert LanguageModel.from_environment(MODEL) == LanguageModel("gpt-test")


def test_what_is_set(tmp_path: Path) -> None:
    file = tmp_path / "told.txt"
    file.write_text("Be brief.\n")
    found = LanguageModel.from_environment(
        {
            **MODEL,
            "FACTORYCHAIN_ASSISTANT_INSTRUCTIONS_FILE": str(file),
            "FACTORYCHAIN_ASSISTANT_WINDOW_TOKENS": "8000",
            "FACTORYCHAIN_ASSISTANT_ANSWER_MAX_TOKENS": "500",
            "FACTORYCHAIN_ASSISTANT_STEPS_MAX": "3",
        }
    )
    assert found == LanguageModel("gpt-test", "Be brief.", 8000, 500, 3)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.txt")
    with pytest.raises(AgentError, match=r"INSTRUCTIONS_FILE: .*gone\.txt cannot be read"):
        LanguageModel.from_environment({**MODEL, "FACTORYCHAIN_ASSISTANT_INSTRUCTIONS_FILE": gone})


def test_without_a_model_the_assistant_misses_it_and_says_which_variable_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FACTORYCHAIN_LLM_MODEL", raising=False)
    with pytest.raises(
        AgentDependencyMissing, match=r": no model is configured: set FACTORYCHAIN_LLM_MODEL"
    ):
        run(Assistant, "hi")


def test_a_model_that_nothing_reaches_says_what_to_set() -> None:
    with pytest.raises(AgentError, match=r"is set, but .* set FACTORYCHAIN_LLM_API_KEY"):
        LanguageModel.from_environment({"FACTORYCHAIN_LLM_MODEL": "gpt-test"})


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MODEL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AgentDependencyMissing, match=r"pip install 'factorychain\[openai\]'"):
        run(Assistant, "hi")
