"""Where the layers of a local chain find one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorychain._core.settings import AgentsSettings
from factorychain.local.chain import LAYERS, ChainOptions, plan_chain
from factorychain.local.datadir import DataDir


def environments(folder: Path, isolation: str = "") -> dict[str, dict[str, str]]:
    data = DataDir(folder)
    data.prepare()
    plan = plan_chain(ChainOptions(edge_port=0, isolation=isolation), data)
    try:
        return {each.name: dict(each.env) for each in plan.processes if each.name in LAYERS}
    finally:
        plan.close()
        data.release()


def test_the_layers_call_one_another_over_sockets_and_listen_on_tcp_too(tmp_path: Path) -> None:
    if len(str(tmp_path / "emitter.sock")) > 100:
        pytest.skip("the temporary folder's path is too long for a socket")
    found = environments(tmp_path)
    for layer in LAYERS:
        near = f"unix:{tmp_path}/{layer}.sock"
        assert found[layer]["FACTORYCHAIN_LISTEN_ALSO"] == near
        assert found[layer]["FACTORYCHAIN_LISTEN"].startswith("127.0.0.1:")
        assert found["engine"][f"FACTORYCHAIN_{layer.upper()}_ADDRESS"] == near


def test_a_path_that_is_too_long_for_a_socket_leaves_tcp(tmp_path: Path) -> None:
    found = environments(tmp_path / ("long" * 30))
    for layer in LAYERS:
        assert "FACTORYCHAIN_LISTEN_ALSO" not in found[layer]
        address = found[layer]["FACTORYCHAIN_LISTEN"]
        assert found["bridge"][f"FACTORYCHAIN_{layer.upper()}_ADDRESS"] == address


def test_only_the_agents_are_told_where_runs_are(tmp_path: Path) -> None:
    found = environments(tmp_path, isolation="task")
    assert found["agents"]["FACTORYCHAIN_ISOLATION"] == "task"
    assert [layer for layer in LAYERS if "FACTORYCHAIN_ISOLATION" in found[layer]] == ["agents"]


def test_the_key_of_a_model_is_in_no_environment_and_only_the_agents_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_LLM_API_KEY", "sk-canary")
    data = DataDir(tmp_path)
    data.prepare()
    plan = plan_chain(ChainOptions(edge_port=0), data)
    try:
        for each in plan.processes:
            assert "sk-canary" not in str(each.env)
            path = each.env.get("FACTORYCHAIN_LLM_API_KEY_FILE", "")
            assert bool(path) == (each.name == "agents")
            if path:
                assert Path(path).read_text() == "sk-canary"
                assert int(path.rpartition("/")[2]) in each.inherit
    finally:
        plan.close()
        data.release()


def test_no_agent_may_read_the_keys_of_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_AGENT_UNREADABLE_PATHS", "/srv/keys")
    folder = tmp_path / "a, b"
    given = environments(folder)["agents"]["FACTORYCHAIN_AGENT_UNREADABLE_PATHS"]
    monkeypatch.setenv("FACTORYCHAIN_AGENT_UNREADABLE_PATHS", given)
    assert AgentsSettings().agent_unreadable_paths == ("/srv/keys", str(folder))


@pytest.mark.parametrize(
    ("given", "default"),
    [
        ({}, None),
        ({"LLM_MODEL": "m"}, "assistant"),
        ({"LLM_MODEL": "m", "DEFAULT_AGENT": "b"}, "b"),
    ],
)
def test_who_sets_up_a_model_talks_with_the_assistant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], default: str | None
) -> None:
    for name in ("LLM_MODEL", "DEFAULT_AGENT"):
        monkeypatch.delenv(f"FACTORYCHAIN_{name}", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(f"FACTORYCHAIN_{name}", value)
    assert environments(tmp_path)["engine"].get("FACTORYCHAIN_DEFAULT_AGENT") == default
