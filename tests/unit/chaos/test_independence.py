"""Who judges the product knows nothing of it: also no module that the checker reads does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
_NEW_MODULES = """
import sys
before = set(sys.modules)
import tests.chaos.checker
new = {each.partition(".")[0] for each in set(sys.modules) - before}
print(*(new - sys.stdlib_module_names))
"""


def test_the_checker_brings_nothing_but_tests_into_a_fresh_interpreter() -> None:
    command = [sys.executable, "-c", _NEW_MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["tests"]
