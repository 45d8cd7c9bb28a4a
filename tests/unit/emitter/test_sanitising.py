"""Texts without control characters, JSON without secrets, bytes without invalid UTF-8."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain.types.v1.event_pb2 import AgentThinking, Event, ToolCompleted, ToolFailure
from factorychain_emitter.redaction import MASK, Scanner
from factorychain_emitter.rejection import Rejected
from factorychain_emitter.sanitising import JSON_DEPTH_MAX, Sanitiser, readable, without_control
from tests.unit.emitter.secret_samples import SAMPLES, Sample


def sanitiser() -> Sanitiser:
    return Sanitiser(Scanner())


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("tab\tline\nend\r\n", "tab\tline\nend\r\n"),
        ("\x1b[31mred\x07\x00", "[31mred"),
        ("c1 \x9b31m del \x7f", "c1 31m del "),
        ("admin\u202egnp.exe", "admingnp.exe"),
        ("\u2066hidden\u2069", "hidden"),
        ("naïve 日本 🧑‍💻", "naïve 日本 🧑‍💻"),
    ],
)
def test_control_characters_are_dropped_and_the_rest_stays(text: str, cleaned: str) -> None:
    assert without_control(text) == cleaned


def test_a_secret_broken_up_by_control_characters_is_found() -> None:
    assert sanitiser().text("AKIA\x00IOSFODNN\x1b7EXAMPLE") == f"AKIA{MASK}"


@pytest.mark.parametrize(
    "raw",
    ['{"a":1}', " [1, 2.50,\n null ] ", '"text"', "12345678901234567890123", '{"a":"\\n\\""}'],
)
def test_clean_json_stays_as_it_is_to_the_character(raw: str) -> None:
    assert sanitiser().json(raw) == raw


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_secrets_are_found_in_values_keys_and_nested_json(
    sample: Sample, ensure_ascii: bool
) -> None:
    value: Any = {"a": ["é", {sample.text: sample.text}], "b": json.dumps({"x": sample.text})}
    raw = json.dumps(value, ensure_ascii=ensure_ascii)
    cleaner = sanitiser()
    cleaned = cleaner.json(raw)
    for form in (
        sample.body,
        json.dumps(sample.body)[1:-1],
        json.dumps(json.dumps(sample.body)[1:-1])[1:-1],
    ):
        assert form not in cleaned
    assert json.loads(cleaned)["a"][0] == "é"
    assert set(cleaner.redacted) == {sample.kind}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
def test_secrets_behind_escapes_are_found(sample: Sample) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in sample.text)
    cleaned = sanitiser().json(f'{{"a":"{escaped}"}}')
    assert sample.body not in json.loads(cleaned)["a"]


def test_a_slash_may_be_escaped_too() -> None:
    cleaned = sanitiser().json('"postgres:\\/\\/u:secret-word@h"')
    assert json.loads(cleaned) == f"postgres://u:{MASK}@h"


def test_a_key_makes_a_secret_of_its_value() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    cleaner = sanitiser()
    cleaned = json.loads(cleaner.json(json.dumps({"SecretAccessKey": secret, "Region": "eu"})))
    assert cleaned == {"SecretAccessKey": MASK, "Region": "eu"}
    assert cleaner.redacted == ["aws"]


def test_control_characters_behind_escapes_are_dropped() -> None:
    assert json.loads(sanitiser().json('{"a\\u0000":"x\\u001b[2J\\u202ey"}')) == {"a": "x[2Jy"}


@pytest.mark.parametrize("raw", ["", "{", "nul", "{'a':1}", '"\x01"', "NaN", "1 2", '"\\ud800"'])
def test_what_is_no_json_is_rejected(raw: str) -> None:
    with pytest.raises(Rejected, match="not valid JSON"):
        sanitiser().json(raw)


def test_an_object_can_be_asked_for() -> None:
    with pytest.raises(Rejected, match="expected a JSON object"):
        sanitiser().json("[]", must_be_object=True)


def test_deep_json_with_something_to_clean_is_rejected() -> None:
    depth = JSON_DEPTH_MAX + 2
    with pytest.raises(Rejected, match="deeper"):
        sanitiser().json("[" * depth + '"\\u0000"' + "]" * depth)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.text(st.characters(exclude_categories=["C"])),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(exclude_categories=["C"])), inner, max_size=4)
        ),
    )
)
def test_json_without_anything_bad_keeps_its_value(value: Any) -> None:
    for ensure_ascii in (True, False):
        raw = json.dumps(value, ensure_ascii=ensure_ascii)
        assert json.loads(sanitiser().json(raw)) == value


def test_invalid_utf8_is_replaced_wherever_it_is() -> None:
    event = Event(
        path=["sub"],
        tool_completed=ToolCompleted(
            call="c1", tool="t", result_json='"AB"', error=ToolFailure(reason="X", message="AB")
        ),
    )
    raw = event.SerializeToString().replace(b"AB", b"\xff\xfe")
    mended = readable(raw)
    assert mended.tool_completed.result_json == '"\ufffd\ufffd"'
    assert mended.tool_completed.error.message == "\ufffd\ufffd"
    assert mended.path == ["sub"]


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x5a\x7f", b"\x0a"])
def test_bytes_that_are_no_event_are_rejected(raw: bytes) -> None:
    with pytest.raises(Rejected) as rejected:
        readable(raw)
    assert rejected.value.reason == "MALFORMED_EVENT"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_rejected(raw: bytes) -> None:
    with contextlib.suppress(Rejected):
        readable(raw).SerializeToString()


def test_readable_bytes_are_read_as_they_are() -> None:
    event = Event(agent_thinking=AgentThinking(text="ok"))
    assert readable(event.SerializeToString()) == event
