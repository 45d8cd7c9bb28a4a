"""What runs may do of their class's declarations, and that every run reaches the model gateway."""

from __future__ import annotations

from factorychain._instance.model_access import PLACEHOLDER
from factorychain._instance.needs import Needs
from factorychain._sandbox import Confinement
from factorychain_agents.process.profiles import Allowed, kind_of

_ALLOWED = Allowed(1 << 30, 60.0)
_OPERATORS = {"OPENAI_API_KEY": "sk-of-the-operator", "TZ": "UTC"}


def _confinement(needs: Needs, gateway_url: str) -> Confinement:
    kind = kind_of(needs, _ALLOWED, "/shared", _OPERATORS, gateway_url)
    return Confinement.from_json(kind.confinement)


def test_without_a_gateway_there_is_no_port_and_no_variable() -> None:
    found = _confinement(Needs(), "")
    assert found.connect_ports == ()
    assert not [each for each in found.environment if "API_KEY" in each]


def test_with_one_every_run_may_reach_its_port_and_finds_it() -> None:
    found = _confinement(Needs(network_ports=(443,)), "http://127.0.0.1:4711")
    assert found.connect_ports == (443, 4711)
    assert found.environment["OPENAI_BASE_URL"] == "http://127.0.0.1:4711/v1"
    assert found.environment["OPENAI_API_KEY"] == PLACEHOLDER
    assert "sk-of-the-operator" not in str(found)


def test_what_an_agent_declares_itself_is_the_operators() -> None:
    found = _confinement(Needs(env=("OPENAI_API_KEY",)), "http://127.0.0.1:4711")
    assert found.environment["OPENAI_API_KEY"] == "sk-of-the-operator"
    assert "OPENAI_BASE_URL" not in found.environment
    assert found.environment["ANTHROPIC_API_KEY"] == PLACEHOLDER
