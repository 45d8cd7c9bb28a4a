"""Configuration: documented, bounded, refused with the variable's name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from factorychain._core.settings import (
    AgentsSettings,
    BridgeSettings,
    CommonSettings,
    EmitterSettings,
    EngineSettings,
    SettingDoc,
    all_settings,
    settings_problem,
)
from factorychain._core.settings.reference import SERVICES

ROOT = Path(__file__).parents[3]

DOCS = {each.variable: each for each in all_settings()}


def problem(
    settings: type[CommonSettings], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> str:
    for name, value in environ.items():
        monkeypatch.setenv(f"FACTORYCHAIN_{name}", value)
    with pytest.raises(ValidationError) as caught:
        settings()
    return settings_problem(caught.value)


@pytest.mark.parametrize("settings", SERVICES.values())
def test_every_service_starts_with_the_defaults(settings: type[CommonSettings]) -> None:
    settings()


def test_the_defaults_are_those_of_the_specification() -> None:
    engine, bridge = EngineSettings(), BridgeSettings()
    assert (engine.user_max_runs, engine.user_max_queued) == (2, 16)
    assert (engine.run_lifetime_s, engine.run_idle_s, engine.cleanup_interval_s) == (300, 60, 5)
    assert (bridge.recovery_attempts, bridge.recovery_delay_s) == (3, 1.0)
    assert (bridge.frame_max_bytes, bridge.frame_max_bytes_unauthenticated) == (327_680, 16_384)
    assert (bridge.sockets_per_user, bridge.subscriptions_per_socket) == (16, 64)
    assert EmitterSettings().event_max_bytes == 65_536


@pytest.mark.parametrize("doc", DOCS.values(), ids=lambda each: each.variable)
def test_every_variable_says_what_it_means(doc: SettingDoc) -> None:
    assert len(doc.meaning) > 10
    assert doc.type
    if doc.type in ("integer", "number"):
        assert doc.bounds
    if doc.type == "number":
        assert doc.unit


def test_a_variable_is_listed_with_the_services_that_read_it() -> None:
    listen = DOCS["FACTORYCHAIN_LISTEN"]
    assert listen.services == ("engine", "agents", "emitter", "bridge")
    assert "engine 127.0.0.1:7101" in listen.default
    assert DOCS["FACTORYCHAIN_USER_MAX_RUNS"].services == ("engine",)
    assert DOCS["FACTORYCHAIN_FRAMES_PER_S"].unit == "1/s"
    assert DOCS["FACTORYCHAIN_MODE"].type == "one of production, development"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_setting_that_it_does_not_read(service: str) -> None:
    folders = [ROOT / "services" / service, ROOT / "factorychain" / "_core"]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    code = "\n".join(path.read_text() for path in paths if path.parent.name != "settings")
    # Agents that come along read theirs themselves, also where there are no settings.
    builtin = "\n".join(each.read_text() for each in (ROOT / "factorychain/builtin").rglob("*.py"))
    unread = [
        name
        for name in SERVICES[service].model_fields
        if not re.search(rf"\.{name}\b", code)
        and not re.search(
            rf"\b{name.removeprefix('assistant_').upper()}|_{name.upper()}\b", builtin
        )
    ]
    assert unread == []


@pytest.mark.parametrize("size", ["-2", "0", "524288", "16777215"])
def test_a_log_that_could_keep_nothing_is_refused(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "FACTORYCHAIN_LOG_MAX_BYTES: " in problem(
        BridgeSettings, {"LOG_MAX_BYTES": size}, monkeypatch
    )


@pytest.mark.parametrize("size", ["-1", "16777216"])
def test_a_log_without_a_limit_or_with_room_is_taken(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_LOG_MAX_BYTES", size)
    assert BridgeSettings().log_max_bytes == int(size)


def test_no_setting_takes_a_secret_itself() -> None:
    secret = re.compile("SECRET|PASSWORD|PRIVATE|TXN_KEY")
    assert all(name.endswith("_FILE") for name in DOCS if secret.search(name))


def test_a_value_out_of_bounds_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = problem(EngineSettings, {"USER_MAX_RUNS": "0", "RUN_LIFETIME_S": "soon"}, monkeypatch)
    assert "FACTORYCHAIN_USER_MAX_RUNS: " in text
    assert "FACTORYCHAIN_RUN_LIFETIME_S: " in text


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "http://x:1", "127.0.0.1"])
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = problem(EngineSettings, {"LISTEN": address}, monkeypatch)
    assert "FACTORYCHAIN_LISTEN: expected host:port" in text


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:7101", "unix:/run/x.sock", "dns:///e:1"])
def test_addresses_and_grpc_targets_are_taken(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_ENGINE_ADDRESS", address)
    assert AgentsSettings().engine_address == address


def test_pings_that_a_server_would_punish_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = problem(
        EmitterSettings, {"KEEPALIVE_TIME_S": "10", "KEEPALIVE_MIN_S": "10"}, monkeypatch
    )
    assert "FACTORYCHAIN_KEEPALIVE_TIME_S (10.0) must be above" in text


def test_two_sources_of_user_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"USER_JWKS_URL": "https://idp/jwks", "USER_SECRET_FILE": "/secret"}
    assert "set only one of" in problem(BridgeSettings, environ, monkeypatch)


def test_nats_over_web_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORYCHAIN_NATS_URL", "nats://one:4222, wss://two:443")
    with pytest.raises(ValidationError, match="NATS over WebSockets is not supported"):
        EngineSettings()


def test_an_even_number_of_replicas_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "use 1, 3 or 5" in problem(EngineSettings, {"NATS_REPLICAS": "2"}, monkeypatch)


@pytest.mark.parametrize("written", ["a.b:C, d", '["a.b:C", "d"]'])
def test_a_list_is_written_with_commas_or_as_json(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_AGENT_MODULES", written)
    assert AgentsSettings().agent_modules == ("a.b:C", "d")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORYCHAIN_USER_MAX_RUNS", "")
    assert EngineSettings().user_max_runs == 2


def test_a_private_path_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    said = problem(AgentsSettings, {"AGENT_UNREADABLE_PATHS": "/srv/keys, keys"}, monkeypatch)
    assert said == "FACTORYCHAIN_AGENT_UNREADABLE_PATHS: keys is not an absolute path"
