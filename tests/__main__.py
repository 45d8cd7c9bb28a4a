"""`make test`: pytest with its tests spread over all cores (`spreading.py`). Arguments go to pytest."""

from __future__ import annotations

import os
import sys

import pytest

# Much of what they do is waiting for other processes.
_WORKERS_PER_CORE = 2
# Each worker may have a whole chain running.
_MOST_WORKERS = 4


def main() -> int:
    # Hundreds of processes are started: where none may keep what it has compiled, each compiles anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    workers = min((os.cpu_count() or 1) * _WORKERS_PER_CORE, _MOST_WORKERS)
    return pytest.main(["-p", "tests.spreading", "--spread", str(workers), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
