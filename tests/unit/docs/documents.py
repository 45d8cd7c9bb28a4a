"""The documents, and what in them can be checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "protos").glob("*.md"),
        *(ROOT / "deploy").glob("*.md"),
        *(ROOT / "clients").rglob("README.md"),
        *(ROOT / each / "README.md" for each in ("factorychain", "services", "tests")),
    ]
)
_FENCE = re.compile(
    r"^(?:<!-- example: (?P<example>\{[^\n]*\}) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. `example` is what the comment above it says about how to check it."""

    path: Path
    number: int
    language: str
    text: str
    example: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{name_of(self.path)}-{self.number}"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(*languages: str) -> Iterator[Block]:
    for path in DOCUMENTS:
        for number, match in enumerate(_FENCE.finditer(path.read_text("utf-8")), 1):
            if match["language"] in languages:
                example = json.loads(match["example"]) if match["example"] else None
                yield Block(path, number, match["language"], match["text"], example)
