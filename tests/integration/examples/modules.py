"""The modules of the examples, imported as from their own folders."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[3] / "examples"


def example(folder: str, name: str) -> ModuleType:
    """A module of one example, new each time."""
    path = EXAMPLES / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its providers and annotations are looked up there
    spec.loader.exec_module(module)
    return module
