"""What a new project consists of.

Invariant: its module's name is one that Python can import, and nothing else's.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Final

NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
_TEMPLATES: Final = {
    "{module}.py": "agent.py.txt",
    "test_{module}.py": "test_agent.py.txt",
    "README.md": "README.md.txt",
    "requirements.txt": "requirements.txt.txt",
    ".gitignore": "gitignore.txt",
}


class BadName(ValueError):
    """The name cannot be that of an agent; the text says why."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project of one agent."""

    name: str
    module: str
    cls: str

    @classmethod
    def named(cls, name: str) -> Project:
        """The project of an agent of this name.

        Raises:
            BadName: an agent, or its module, cannot be called so.
        """
        if not NAME.match(name):
            raise BadName(
                f"{name!r} is no name for an agent: use a-z, 0-9, - and _, with a letter first"
            )
        words = [each for each in re.split(r"[-_]", name) if each]
        module = "_".join(words)
        taken = _taken(module)
        if taken:
            raise BadName(f"the module of {name!r} would be {module}.py, but {taken}")
        return cls(name, module, "".join(each.capitalize() for each in words))

    def files(self, version: str) -> Iterator[tuple[str, str]]:
        """Each file's name and text; `version` is the oldest factorychain that it works with."""
        folder = resources.files("factorychain.cli.new") / "project"
        said = {"name": self.name, "module": self.module, "cls": self.cls, "version": version}
        for name, template in _TEMPLATES.items():
            text = (folder / template).read_text("utf-8")
            yield name.format(module=self.module), Template(text).substitute(said)


def _taken(module: str) -> str:
    """Why a module of the user's cannot be called so; empty if it can."""
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        return "that is a word of Python"
    if module in sys.stdlib_module_names:
        return "that is a module of Python"
    # A test beside it is imported by its own name.
    if importlib.util.find_spec(module) is not None:
        return "a module of this name is installed, or in this folder"
    return ""
