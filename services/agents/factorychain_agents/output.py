"""What agents print, and their tracebacks: on this process's stderr with the run they belong to.

Invariant: a line is attributed to the run whose code wrote it, found by context variable (threads of a
run inherit it); what nobody's run wrote passes through unchanged.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO, cast

from factorychain._core.logging import get_logger

log = get_logger(__name__)

# A run that never ends its line must not fill the memory.
_LINE_MAX_CHARS = 16_384


class _Lines:
    """The unfinished lines of one run."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.partial: dict[str, str] = {}
        self.lock = threading.Lock()


_writing: ContextVar[_Lines | None] = ContextVar("factorychain_output", default=None)


@contextmanager
def captured(run: str) -> Iterator[None]:
    """What this context and those that inherit it print belongs to the run."""
    lines = _Lines(run)
    token = _writing.set(lines)
    try:
        yield
    finally:
        _writing.reset(token)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, RunStream):
                stream.finish(lines)


class RunStream:
    """Stands in for `sys.stdout` or `sys.stderr`."""

    def __init__(self, name: str, original: TextIO, output: TextIO, as_json: bool) -> None:
        self._name = name
        self._original = original
        self._output = output
        self._as_json = as_json

    def write(self, text: str) -> int:
        lines = _writing.get()
        if lines is None:
            return self._original.write(text)
        with lines.lock:
            whole = lines.partial.pop(self._name, "") + text
            done, _, rest = whole.rpartition("\n")
            if len(rest) > _LINE_MAX_CHARS:
                done, rest = whole, ""
            if rest:
                lines.partial[self._name] = rest
        if done:
            self._show(lines.run, done)
        return len(text)

    def finish(self, lines: _Lines) -> None:
        """Show what was not ended by a line end."""
        with lines.lock:
            rest = lines.partial.pop(self._name, "")
        if rest:
            self._show(lines.run, rest)

    def flush(self) -> None:
        self._original.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._original, name)

    def _show(self, run: str, text: str) -> None:
        show_printed(run, self._name, text, None if self._as_json else self._output)


def show_printed(run: str, stream: str, text: str, output: TextIO | None) -> None:
    """Show what a run printed: to people on `output`, else as a line of the log."""
    if output is None:
        # Tracebacks come on stderr: a level that hides chatter still shows them.
        say = log.warning if stream == "stderr" else log.info
        say("the agent printed", run=run, stream=stream, text=text)
        return
    # One write, so that lines of other runs do not come between.
    output.write("".join(f"[{run}] {line}\n" for line in text.split("\n")))
    output.flush()


class OutputCapture:
    """A component: while it runs, the standard streams are `RunStream`s."""

    name = "output"

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._before: tuple[TextIO, TextIO] | None = None

    @property
    def healthy(self) -> bool:
        return True

    async def start(self) -> None:
        self._before = (sys.stdout, sys.stderr)
        for name, original in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            stream = RunStream(name, original, self._before[1], self._as_json)
            setattr(sys, name, cast("TextIO", stream))

    def show(self, run: str, stream: str, text: str) -> None:
        """Show what a run printed in a process of its own."""
        if self._as_json:
            show_printed(run, stream, text, None)
        else:
            show_printed(run, stream, text, self._before[1] if self._before else sys.stderr)

    async def stop(self) -> None:
        if self._before is not None:
            (sys.stdout, sys.stderr), self._before = self._before, None
