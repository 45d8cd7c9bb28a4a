"""`factorychain new`: what it makes, and what it never does."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from factorychain.cli.app import app
from factorychain.cli.new.project_files import Project

FILES = {"my_agent.py", "test_my_agent.py", "README.md", "requirements.txt", ".gitignore"}


def typed(*arguments: str) -> tuple[int, str]:
    """Exit status, and everything that was written."""
    found = CliRunner().invoke(app, ["new", *arguments], env={"COLUMNS": "200"})
    return found.exit_code, found.output


def test_it_makes_a_folder_and_says_how_to_go_on(tmp_path: Path) -> None:
    status, said = typed("my-agent", "--in", str(tmp_path))
    assert status == 0
    folder = tmp_path / "my-agent"
    assert {each.name for each in folder.iterdir()} == FILES
    for command in (f"cd {folder}", "up --agents my_agent --reload", "run --user you", "pytest"):
        assert command in said
    for name in ("my_agent.py", "test_my_agent.py"):
        ast.parse((folder / name).read_text())
    readme = (folder / "README.md").read_text()
    assert "$ factorychain up --agents my_agent --reload" in readme
    assert (folder / "requirements.txt").read_text().startswith("factorychain>=")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    status, said = typed("mine", "--in", str(tmp_path))
    assert status == 2
    assert "not empty" in said
    assert [each.name for each in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    assert typed("mine", "--in", str(tmp_path))[0] == 0


def test_a_file_where_the_folder_would_be_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    status, said = typed("mine", "--in", str(tmp_path))
    assert status == 2
    assert "cannot be made" in said
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("My", "use a-z"),
        ("9lives", "a letter first"),
        ("a b", "use a-z"),
        ("../up", "use a-z"),
        ("x" * 65, "use a-z"),
        ("json", "module of Python"),
        ("class", "word of Python"),
        ("pytest", "is installed"),
        ("factorychain", "is installed"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, name: str, why: str
) -> None:
    status, said = typed(name, "--in", str(tmp_path))
    assert status == 2
    assert why in " ".join(said.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "module", "cls"),
    [
        ("my-agent", "my_agent", "MyAgent"),
        ("wayfarer", "wayfarer", "Wayfarer"),
        ("a--b_c", "a_b_c", "ABC"),
        ("desk2", "desk2", "Desk2"),
    ],
)
def test_the_module_and_the_class_are_named_after_the_agent(
    name: str, module: str, cls: str
) -> None:
    project = Project.named(name)
    assert (project.module, project.cls) == (module, cls)
    texts = dict(project.files("0.1"))
    assert f"class {cls}(Agent):" in texts[f"{module}.py"]
    assert f"name = {json.dumps(name)}" in texts[f"{module}.py"]
    assert f"from {module} import {cls}" in texts[f"test_{module}.py"]
