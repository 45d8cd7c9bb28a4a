"""What `up` tells the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factorychain.local.state import ChainState

STATE = ChainState(
    edge="http://127.0.0.1:8080",
    engine="127.0.0.1:1",
    agents="127.0.0.1:2",
    emitter="127.0.0.1:3",
    bridge="127.0.0.1:4",
    nats="nats://127.0.0.1:5",
    pids={"engine": [11]},
)


def test_it_has_the_keys_that_others_rely_on(tmp_path: Path) -> None:
    STATE.write(tmp_path / "ready.json")
    written = json.loads((tmp_path / "ready.json").read_text())
    assert list(written) == ["edge", "engine", "agents", "emitter", "bridge", "nats", "pids"]
    assert written["pids"] == {"engine": [11]}


def test_what_is_read_is_what_was_written_also_into_a_folder_that_was_not_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "ready.json"
    STATE.write(path)
    assert ChainState.read(path) == STATE
    assert [each.name for each in path.parent.iterdir()] == ["ready.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"edge": "x"}', '{"other": 1}'])
def test_what_cannot_be_read_is_no_state(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ready.json"
    if text is not None:
        path.write_text(text)
    assert ChainState.read(path) is None
