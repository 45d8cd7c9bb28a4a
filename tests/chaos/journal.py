"""What a client notes down while it happens, for a checker that reads it afterwards: lines of JSON.

| `what` | fields |
|---|---|
| `asked` | `request`, `thread`, `agent`: a start was sent, perhaps again |
| `admitted` | `request`, `run`, `thread` |
| `refused` | `request`, `thread`, `error` |
| `answering` | `run`, `question`, `value`: an answer was sent, perhaps again |
| `answered` | `run`, `question`, `value`, `next`: it was taken; the run that goes on |
| `unanswered` | `run`, `question`, `error`: it was refused |
| `cancel` | `run`: its end was asked for |
| `frame` | `reader`, `frame`: came on a socket, as it came; `reader` is who read (`live`, or who joined late) |
| `joined` | `reader`, `thread`, `after`: what this reader says it has of the thread |
| `caught_up` | `reader`, `thread`: a late reader has read to the end of a thread at rest |

A run that goes on after an `Interrupt` has the `request` of the first with `-next` behind it.

Every line has `at`, Unix time in seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path


class Journal:
    """One client's."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def note(self, what: str, **fields: object) -> None:
        """Note something down."""
        self._file.write(json.dumps({"at": time.time(), "what": what, **fields}) + "\n")

    def frame(self, reader: str, text: str) -> None:
        """Note down what came, as it came."""
        line = f'{{"at": {time.time()}, "what": "frame", "reader": "{reader}", "frame": {text}}}\n'
        self._file.write(line)

    def close(self) -> None:
        """Everything stands in the file."""
        self._file.close()


def entries(path: Path) -> Iterator[dict[str, object]]:
    """Every line of a journal."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
