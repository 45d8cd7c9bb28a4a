"""What is built before a run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from factorychain._process import warming

_FIRST = """
import asyncio, sys
{before}
from factorychain._process.warming import warm_libraries
asyncio.run(warm_libraries())
{after}
"""


def _in_a_new_process(before: str, after: str) -> str:
    code = _FIRST.format(before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_libraries_that_no_agent_has_imported_stay_away() -> None:
    after = "print('openai' in sys.modules, 'anyio' in sys.modules)"
    assert _in_a_new_process("", after) == "False False"


def test_the_models_of_a_streamed_answer_are_built() -> None:
    before = (
        "import openai, anyio\n"
        "from openai.types.chat import ChatCompletionChunk as chunk\n"
        "print(chunk.__pydantic_complete__)"
    )
    after = (
        "print(chunk.__pydantic_complete__, 'anyio._backends._asyncio' in sys.modules)\n"
        "print('httpcore2' in sys.modules)"
    )
    assert _in_a_new_process(before, after).split() == ["False", "True", "True", "True"]


def test_the_other_protocol_is_built_for_pydantic_ai() -> None:
    after = (
        "from openai import _models\n"
        "from openai.types.responses import ResponseStreamEvent\n"
        "built = _models.TypeAdapter.cache_info().misses\n"
        "_models.TypeAdapter(ResponseStreamEvent.__origin__)\n"
        "print(_models.TypeAdapter.cache_info().misses - built)"
    )
    assert _in_a_new_process("import pydantic_ai.models.openai", after) == "0"


async def test_what_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A library of a version that is not known."""

    monkeypatch.setitem(sys.modules, "openai", Other)
    await warming.warm_libraries()
