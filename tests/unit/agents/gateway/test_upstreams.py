"""Servers of models are what the operator has configured, and what is wrong with that is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorychain._core.ids import Principal
from factorychain._core.settings import GatewaySettings, Misconfigured
from factorychain_agents.gateway.services import services_of
from factorychain_agents.gateway.upstreams import upstreams_of


def _file(folder: Path, text: str) -> Path:
    file = folder / "servers.toml"
    file.write_text(text)
    return file


def test_without_settings_there_is_none() -> None:
    assert not upstreams_of(GatewaySettings())
    assert not services_of(GatewaySettings())


def test_a_key_alone_means_the_vendor() -> None:
    for protocol, url in (
        ("openai", "https://api.openai.com/v1/chat/completions"),
        ("anthropic", "https://api.anthropic.com/v1/messages"),
    ):
        settings = GatewaySettings(llm_api_key="sk-123456", llm_protocol=protocol)
        (found,) = upstreams_of(settings)
        assert str(found.url(url.rpartition("/v1/")[2])) == url
        assert "sk-123456" in str(found.headers())
        assert "sk-123456" not in repr(found)


def test_a_server_that_asks_for_no_key_is_sent_none() -> None:
    (found,) = upstreams_of(GatewaySettings(llm_base_url="http://127.0.0.1:11434/v1/"))
    assert found.headers() == {}
    assert str(found.url("models")) == "http://127.0.0.1:11434/v1/models"


def test_the_first_of_a_protocol_is_where_its_variables_lead(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-of-claude\n")
    file = _file(
        tmp_path,
        f'[claude]\nprotocol = "anthropic"\napi_key = {{ file = "{key}" }}\nmodels = ["claude-*"]\n'
        '[local]\nbase_url = "http://10.0.0.1:8000/v1"\nstream_usage = false\n',
    )
    found = upstreams_of(GatewaySettings(llm_api_key="sk-123456", llm_upstreams_file=file))
    first, other = found.first("openai"), found.first("anthropic")
    assert first is not None
    assert other is not None
    assert (first.name, other.name) == ("default", "claude")
    assert other.headers() == {"x-api-key": "sk-of-claude"}
    assert other.allows("claude-x")
    assert not other.allows("gpt-x")
    local = found.named("local")
    assert local is not None
    assert (local.stream_usage, local.allows("anything")) == (False, True)
    assert found.named("none") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a\n", "cannot be read"),
        ("a = 1\n", "'a' is no table"),
        ('["a b"]\n', "'a b' is no table"),
        ("[default]\n", "choose another"),
        ('[a]\nprotocol = "gemini"\n', "use 'openai' or 'anthropic'"),
        ('[a]\nbase_url = "ftp://x"\n', "a: base_url: expected http"),
        ('[a]\nbase_url = "https://key@x/v1"\n', "a: base_url: expected http"),
        ('[a]\napi_keys = "x"\n', "a: api_keys means nothing"),
        ("[a]\napi_key = 1\n", "a: api_key must be a table"),
        ('[a]\napi_key = { file = "/none" }\n', "/none cannot be read"),
        ('[a]\nmodels = "m"\n', "a: models must be a list"),
        ('[a]\nstream_usage = "no"\n', "a: stream_usage must be true or false"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(Misconfigured) as refused:
        upstreams_of(GatewaySettings(llm_upstreams_file=file))
    assert str(refused.value).startswith(f"FACTORYCHAIN_LLM_UPSTREAMS_FILE: {file}")
    assert problem in str(refused.value)


def test_whose_secret_is_chosen_by_the_principal_alone(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        '[jira]\nbase_url = "https://jira.example/rest/"\nsecret = "for-all"\ntenants.acme = "for-acme"\n'
        'users.acme.ada = "for-ada"\n[mail]\nbase_url = "https://mail.example"\n'
        'headers = { X-Key = "{secret}", X-App = "chat" }\nusers.acme.ada = "mail-of-ada"\n',
    )
    services = services_of(GatewaySettings(credentials_file=file))
    jira, mail = services.named("jira"), services.named("mail")
    assert jira is not None
    assert mail is not None
    for tenant, user, secret in (
        ("acme", "ada", "for-ada"),
        ("acme", "bob", "for-acme"),
        ("other", "ada", "for-all"),
    ):
        assert jira.secret_of(Principal(tenant, user)).reveal() == secret
    assert services.of(Principal("acme", "ada")) == ("jira", "mail")
    assert services.of(Principal("acme", "bob")) == ("jira",)
    headers = mail.headers_with(mail.secret_of(Principal("acme", "ada")))
    assert headers == {"X-Key": "mail-of-ada", "X-App": "chat"}
    assert "mail-of-ada" not in repr(mail)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a]\n", "a: base_url: expected http"),
        ('[a]\nbase_url = "https://x"\nheaders = { A = "b" }\n', "one with {secret} in it"),
        ('[a]\nbase_url = "https://x"\nheaders = { A = 1 }\n', "one with {secret} in it"),
        ('[a]\nbase_url = "https://x"\nusers.ada = "s"\n', "expected users.TENANT.USER"),
        ('[a]\nbase_url = "https://x"\nsecret = ""\n', "the secret is empty"),
    ],
)
def test_what_is_wrong_with_a_service_is_told_with_its_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(Misconfigured, match="FACTORYCHAIN_CREDENTIALS_FILE") as refused:
        services_of(GatewaySettings(credentials_file=_file(tmp_path, text)))
    assert problem in str(refused.value)
