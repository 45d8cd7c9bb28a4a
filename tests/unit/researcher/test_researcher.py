"""Real questions to the language reference that CPython ships, and to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorychain.builtin.researcher import Researcher
from factorychain.builtin.researcher.documents import language_reference
from factorychain.builtin.researcher.index import private_folder
from factorychain.errors import AgentDependencyMissing
from factorychain.history import PastRun
from factorychain.input import Input, TextPart
from factorychain.testing import RunResult, run

REFERENCE = {each.name: each.text for each in language_reference()}


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACTORYCHAIN_DOCS_DIR", raising=False)


def ask(question: str, *before: str, **metadata: float) -> RunResult:
    history = [
        PastRun("r", "researcher", "completed", Input(text, (TextPart(text),))) for text in before
    ]
    return run(Researcher, question, history=history, metadata=dict(metadata))


def answer(question: str, *before: str) -> str:
    return str(ask(question, *before).output)


def quoted(text: str) -> list[str]:
    """The quotations of an answer."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.startswith(">"):
            blocks[-1].append(line.removeprefix(">").removeprefix(" "))
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(each) for each in blocks if each]


@pytest.mark.parametrize(
    ("question", "topic", "says"),
    [
        ("How does a with statement work?", "with", "wrap the execution of a block"),
        ("What is a lambda?", "lambda", "anonymous functions"),
        ("What does nonlocal mean?", "nonlocal", "nearest enclosing scope"),
        ("When is __del__ called?", "customization", "about to be destroyed"),
        ("How are default parameter values evaluated?", "function", "from left to right"),
        ("What does the in operator do?", "in", "test for membership"),
        ("What is a context manager?", "context-managers", "defines the runtime context"),
        ("How can I split a string?", "string-methods", "str.split"),
        ("How does try finally work?", "try", "cleanup"),
        ("What does yield do?", "yield", "yield expression"),
    ],
)
def test_questions_that_the_reference_answers(question: str, topic: str, says: str) -> None:
    text = answer(question)
    assert f"Sources: topics/{topic}:" in text
    assert says in text.replace("> ", "")


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "Who won the world cup in 2022?",
        "How do I bake sourdough bread?",
        "What is the best restaurant in Berlin?",
        "How do I connect to a PostgreSQL database?",
        "Which antibiotics help against pneumonia?",
        "When does the next train to Hamburg leave?",
    ],
)
def test_questions_that_it_does_not_answer(question: str) -> None:
    text = answer(question)
    assert "do not answer this" in text
    assert quoted(text) == []


def test_quotations_are_verbatim_and_where_they_are_said_to_be() -> None:
    for question in ("What is a lambda?", "When is __del__ called?", "How do I copy a list?"):
        text = answer(question)
        sources = text.rpartition("Sources: ")[2].split(", ")
        assert len(quoted(text)) == len(sources)
        for source, quotation in zip(sources, quoted(text), strict=True):
            name, _, line = source.rpartition(":")
            at = int(line) - 1
            lines = REFERENCE[name].splitlines()[at : at + quotation.count("\n") + 1]
            assert [each.rstrip() for each in lines] == [
                each.rstrip() for each in quotation.split("\n")
            ]


def test_it_thinks_aloud_searches_reads_and_streams_its_answer() -> None:
    result = ask("How does a with statement work?")
    types = [each.type for each in result.events]
    assert types[:2] == ["agent_started", "agent_thinking"]
    tools = [each.data["tool"] for each in result.of_type("tool_executing")]
    assert tools[0] == "search"
    assert "read" in tools
    assert len(result.of_type("message_delta")) > 5
    assert result.text == result.output
    assert result.ending.data["message"] == result.of_type("message_delta")[0].data["message"]


def test_a_follow_up_uses_the_question_before_it() -> None:
    alone = answer("and when is it released?")
    text = answer("and when is it released?", "What is a memoryview?")
    assert "memoryview" in text
    assert text != alone


def test_what_is_no_question_gets_a_friendly_answer() -> None:
    assert "please ask about something" in answer("hello")
    assert "please ask about something" in answer("")


def test_a_client_may_ask_for_reading_pace() -> None:
    paced = ask("What does nonlocal mean?", pace_ms=0.01)
    plain = ask("What does nonlocal mean?")
    assert paced.output == plain.output
    assert len(paced.of_type("message_delta")) > 2 * len(plain.of_type("message_delta"))


@pytest.fixture
def handbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "travel.md").write_text(
        "# Travel\n\nBook trains with the travel desk.\n\n## Expenses\n\n"
        "Receipts for taxi rides go to finance within 30 days.\n\n"
        "| kind | limit |\n|---|---|\n| taxi | 50 EUR |\n"
    )
    (tmp_path / "pets.txt").write_text(
        "Dogs in the office\n==================\n\nDogs may come on Fridays.\n"
    )
    monkeypatch.setenv("FACTORYCHAIN_DOCS_DIR", str(tmp_path))
    return tmp_path


def test_a_folder_of_ones_own_is_answered_from_with_its_file(handbook: Path) -> None:
    text = answer("When may dogs come to the office?")
    assert "> Dogs may come on Fridays." in text
    assert "Sources: pets.txt:4" in text
    assert "within 30 days" in answer("Where do receipts for a taxi go?")


def test_a_folder_is_not_mixed_with_the_reference(handbook: Path) -> None:
    assert "do not answer this" in answer("What is a lambda?")


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_folder_that_cannot_be_used_makes_it_unavailable_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.write_text("x")
    elif kind == "empty":
        path.mkdir()
    monkeypatch.setenv("FACTORYCHAIN_DOCS_DIR", str(path))
    with pytest.raises(AgentDependencyMissing, match=str(path)):
        ask("anything")


def test_the_index_is_gone_after_the_process_is_done_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ask("What is a lambda?")
    assert list(tmp_path.iterdir()) == []


def test_indexes_of_processes_that_were_killed_are_removed_and_others_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    used, lock = private_folder()
    left, abandoned = private_folder()
    abandoned.close()
    again, other = private_folder()
    assert sorted(tmp_path.iterdir()) == sorted([used, again])
    assert not left.exists()
    lock.close()
    other.close()
