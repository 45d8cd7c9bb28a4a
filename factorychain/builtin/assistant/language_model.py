"""Which model the assistant talks to, and how: what the operator has set, read where agents are prepared.

Invariant: plain data, without a credential: runs reach the model through the gateway, with their own key.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factorychain.errors import AgentError

MODEL = "FACTORYCHAIN_LLM_MODEL"
_PREFIX = "FACTORYCHAIN_ASSISTANT_"
INSTRUCTIONS_FILE = f"{_PREFIX}INSTRUCTIONS_FILE"
WINDOW_TOKENS = f"{_PREFIX}WINDOW_TOKENS"
ANSWER_MAX_TOKENS = f"{_PREFIX}ANSWER_MAX_TOKENS"
STEPS_MAX = f"{_PREFIX}STEPS_MAX"

_REACHED_BY = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
"""Set for runs where there is a gateway; an author's own in a test without a chain."""
_DEFAULT_WINDOW = 100_000
_DEFAULT_STEPS = 16


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The model, and its limits."""

    name: str
    instructions: str = ""
    """The operator's, which go before an agent's own."""
    window_tokens: int = _DEFAULT_WINDOW
    """What a request may hold with its answer; older turns are left out for it."""
    answer_max_tokens: int = 0
    """0: as long as the model may."""
    steps_max: int = _DEFAULT_STEPS
    """Requests to the model in one run."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> LanguageModel:
        """Read what the operator has set.

        Raises:
            AgentError: no model is set, or what talks to it is not installed; says how to mend it.
        """
        name = environment.get(MODEL, "")
        if not name:
            raise _not_configured(
                f"no model is configured: set {MODEL}, and what reaches it "
                "(FACTORYCHAIN_LLM_API_KEY; docs/models.md)"
            )
        if not any(environment.get(each) for each in _REACHED_BY):
            raise _not_configured(
                f"{MODEL} is set, but nothing that reaches the model: set FACTORYCHAIN_LLM_API_KEY, or "
                "FACTORYCHAIN_LLM_BASE_URL for a server that needs no key (docs/models.md)"
            )
        if importlib.util.find_spec("openai") is None:
            raise _not_configured("openai is not installed: pip install 'factorychain[openai]'")
        return cls(
            name,
            _instructions(environment.get(INSTRUCTIONS_FILE, "")),
            _count(environment, WINDOW_TOKENS, _DEFAULT_WINDOW),
            _count(environment, ANSWER_MAX_TOKENS, 0),
            _count(environment, STEPS_MAX, _DEFAULT_STEPS),
        )


def _not_configured(text: str) -> AgentError:
    return AgentError(text, reason="NOT_CONFIGURED")


def _count(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    """The service has checked it, see `AgentsSettings`."""
    return int(environment.get(name) or otherwise)


def _instructions(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = f"{INSTRUCTIONS_FILE}: {path} cannot be read ({error})"
        raise _not_configured(text) from error
