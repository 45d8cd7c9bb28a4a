"""The tables in the documents are what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from factorychain._core.contracts import all_contracts
from factorychain._core.event_kinds import KINDS
from factorychain._core.settings import all_settings
from tests.unit.docs.documents import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date(generate: ModuleType) -> None:
    stale = [path.name for path, text in generate.rendered() if path.read_text("utf-8") != text]
    assert stale == [], "run: make docs"


def test_every_table_has_a_place(generate: ModuleType) -> None:
    documents = {path.name for path, _ in generate.rendered()}
    assert documents == {"contracts.md", "configuration.md", "protocol.md"}


def test_every_rpc_error_event_and_variable_is_in_its_table() -> None:
    contracts = (DOCS / "contracts.md").read_text("utf-8")
    configuration = (DOCS / "configuration.md").read_text("utf-8")
    protocol = (DOCS / "protocol.md").read_text("utf-8")
    for each in all_contracts():
        assert f"| `{each.method}`" in contracts
        assert f"- **{each.method}**: " in contracts
        assert all(f"| `{reason}` | " in contracts for reason in each.errors), each.method
    assert all(f"| `{doc.variable}` | " in configuration for doc in all_settings())
    assert all(f"| `{kind}` | " in protocol for kind in KINDS)


def test_a_table_that_was_edited_by_hand_is_written_again(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.md"
    path.write_text("before\n<!-- generated: events -->\nby hand\n<!-- end -->\nafter\n")
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    ((found, text),) = generate.rendered()
    assert found == path
    assert "by hand" not in text
    assert text.startswith("before\n<!-- generated: events -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
