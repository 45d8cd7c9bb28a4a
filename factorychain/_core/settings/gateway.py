"""The model gateway: which models runs reach through it, with whose credential, how much of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from factorychain._core.settings.shared import PREFIX, Address, Documented, Listed

_KIB = 1024
_MIB = 1024 * _KIB


class GatewaySettings(Documented):
    """For the agents layer."""

    llm_base_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#@]+)?$",
        description="Where the models are that OPENAI_* (or ANTHROPIC_*) lead to in runs; empty means the"
        " vendor of LLM_PROTOCOL itself, if there is a key",
    )
    llm_protocol: Literal["openai", "anthropic"] = Field(
        "openai", description="What the server at LLM_BASE_URL speaks"
    )
    llm_api_key: SecretStr = Field(
        SecretStr(""),
        description="The operator's key for it, which no run sees; rather LLM_API_KEY_FILE, since environments"
        " are shown in many places",
    )
    llm_api_key_file: Path | None = Field(None, description="File with that key instead")
    llm_model: str = Field("", description="Model of the agent `assistant`; empty means it is off")
    llm_models: Listed = Field(
        (),
        description="Models that runs may use there, comma-separated, `*` for any characters; empty means all",
    )
    llm_stream_usage: bool = Field(
        True,
        description="Ask for usage at the end of streams (`stream_options`); false for servers that refuse the"
        " question, whose usage is then estimated",
    )
    llm_upstreams_file: Path | None = Field(
        None, description="File (TOML) with more servers of models, by name; see docs/models.md"
    )
    credentials_file: Path | None = Field(
        None,
        description="File (TOML) with what `ctx.credential` gives to runs, by name; see docs/models.md",
    )
    llm_listen: Address = Field(
        "127.0.0.1:0", description="Address of the gateway, of this machine alone; 0 picks a port"
    )
    llm_run_max_requests: int = Field(
        200, ge=0, description="Requests to models in one run; 0 means no limit"
    )
    llm_run_max_tokens: int = Field(
        0, ge=0, description="Tokens, in and out, of one run; 0 means no limit"
    )
    llm_user_max_requests: int = Field(
        0, ge=0, description="Requests of one user in a window, at this replica; 0 means no limit"
    )
    llm_user_max_tokens: int = Field(
        0, ge=0, description="Tokens of one user in a window, at this replica; 0 means no limit"
    )
    llm_tenant_max_requests: int = Field(
        0, ge=0, description="Requests of one tenant in a window, at this replica; 0 means no limit"
    )
    llm_tenant_max_tokens: int = Field(
        0, ge=0, description="Tokens of one tenant in a window, at this replica; 0 means no limit"
    )
    llm_budget_window_s: float = Field(
        86_400.0,
        ge=1,
        le=31_536_000,
        description="Length of the windows of budgets of users and tenants; a day's begins at midnight UTC",
    )
    llm_run_max_concurrent: int = Field(
        16, ge=1, le=1000, description="Requests of one run through the gateway at once"
    )
    llm_request_max_bytes: int = Field(
        16 * _MIB, ge=_KIB, le=256 * _MIB, description="Largest request to a model"
    )
    llm_response_max_bytes: int = Field(
        64 * _MIB, ge=_KIB, le=1024 * _MIB, description="Largest answer of a model"
    )
    llm_retries: int = Field(
        2, ge=0, le=10, description="How often a request is tried again that got no answer"
    )
    llm_retry_wait_max_s: float = Field(
        20.0,
        ge=0,
        le=600,
        description="How long a request may wait to be tried again; a vendor that wants more (retry-after)"
        " is an error",
    )
    llm_connect_timeout_s: float = Field(
        5.0, ge=0.1, le=120, description="Time to connect to a server of models"
    )
    llm_silence_max_s: float = Field(
        120.0, ge=0.1, le=3600, description="How long a server of models may say nothing"
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.llm_api_key.get_secret_value() and self.llm_api_key_file is not None:
            raise ValueError(f"set only one of {PREFIX}LLM_API_KEY and {PREFIX}LLM_API_KEY_FILE")
        return self

    @model_validator(mode="after")
    def _of_this_machine(self) -> Self:
        host = self.llm_listen.rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError(
                f"{PREFIX}LLM_LISTEN is {self.llm_listen!r}: runs reach the gateway on this machine alone;"
                " use 127.0.0.1:PORT"
            )
        return self
