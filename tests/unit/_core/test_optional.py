"""What a library could use besides is left out of its import, and is there for everyone else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from factorychain._core.optional import without


def test_inside_it_is_not_there_and_afterwards_it_is_as_it_was() -> None:
    import tomllib

    with without("tomllib"), pytest.raises(ModuleNotFoundError):
        import tomllib as _  # noqa: F401
    assert sys.modules["tomllib"] is tomllib
    with without("a_library_that_nobody_has"):
        pass
    assert "a_library_that_nobody_has" not in sys.modules


def test_an_engine_starts_without_what_it_never_uses() -> None:
    never = "{'aiohttp', 'rich'}"
    code = f"import sys, factorychain_engine.server; print({never} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "set()"
