"""`make test`: first what needs the machine for itself, then everything else spread over all cores.

Arguments go to pytest. The last line sums up both in pytest's own form.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

_ALONE: Final = "pytest.mark.alone"
_NO_TESTS: Final = 5
_INTERRUPTED: Final = 2
# Much of what they do is waiting for other processes.
_WORKERS_PER_CORE: Final = 3
# Each worker may have a whole chain running.
_MOST_WORKERS: Final = 6
_CLOSING: Final = re.compile(r"^(?:=+ )?(\d+ [a-z]+(?:, \d+ [a-z]+)*) in [\d.]+s")
_COUNT: Final = re.compile(r"(\d+) ([a-z]+)")
_ORDER: Final = ("failed", "passed", "skipped", "deselected", "xfailed", "warnings", "errors")


def main() -> int:
    """Runs both parts; the exit status is that of the first that failed."""
    began_s = time.monotonic()
    counts: Counter[str] = Counter()
    # Hundreds of processes are started: where none may keep what it has compiled, each compiles anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    workers = str(min((os.cpu_count() or 1) * _WORKERS_PER_CORE, _MOST_WORKERS))
    # In the order of the paths: files that take long, and are few tests, must not come last.
    spread = ["-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    arguments = sys.argv[1:]
    parts = [["-m", "not alone", *spread, *arguments]]
    alone = _files_of_alone(arguments)
    if alone:
        parts.insert(0, ["-m", "alone", *alone])
    statuses = []
    for part in parts:
        statuses.append(_run(part, counts))
        if statuses[-1] == _INTERRUPTED:
            break
    del counts["deselected"]  # by the parts themselves
    said = [f"{counts[name]} {name}" for name in _ORDER if counts[name]]
    print(f"{', '.join(said) or 'no tests ran'} in {time.monotonic() - began_s:.2f}s", flush=True)
    failed = [status for status in statuses if status not in (0, _NO_TESTS)]
    if failed:
        return failed[0]
    return 0 if 0 in statuses else _NO_TESTS


def _files_of_alone(arguments: list[str]) -> list[str]:
    """The arguments with what is to run alone in place of the folders; none if there is nothing.

    Others need not be imported for it, which takes longer than most tests.
    """
    folders = [each for each in arguments if Path(each).is_dir()]
    rest = [each for each in arguments if each not in folders]
    found = [
        str(file)
        for folder in folders
        for file in sorted(Path(folder).rglob("test_*.py"))
        if _ALONE in file.read_text()
    ]
    files = [each for each in rest if Path(each.partition("::")[0]).is_file()]
    return [*found, *rest] if found or files or not folders else []


def _run(arguments: list[str], counts: Counter[str]) -> int:
    """Shows what one run of pytest prints and adds up its closing line."""
    colour = ["--color=yes"] if sys.stdout.isatty() else []
    command = [sys.executable, "-m", "pytest", *colour, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as pytest:
        assert pytest.stdout is not None
        try:
            for line in pytest.stdout:
                print(line, end="", flush=True)
                closing = _CLOSING.match(re.sub(r"\x1b\[[\d;]*m", "", line))
                if closing is not None:
                    found = _COUNT.findall(closing[1])
                    counts.update({_plural(name): int(count) for count, name in found})
        except KeyboardInterrupt:
            pytest.wait()
            return _INTERRUPTED
    return pytest.returncode


def _plural(name: str) -> str:
    return f"{name}s" if name in ("error", "warning") else name


if __name__ == "__main__":
    sys.exit(main())
