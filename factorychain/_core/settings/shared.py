"""What several services are configured with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "FACTORYCHAIN_"

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_TARGET = re.compile(r"(unix:|unix-abstract:|dns:|ipv4:|ipv6:|xds:)\S+")


def _address(value: str) -> str:
    match = _HOST_PORT.fullmatch(value)
    if match and int(match[2]) <= 65535:
        return value
    if _TARGET.fullmatch(value):
        return value
    raise ValueError("expected host:port, unix:/path, or a gRPC target such as dns:///name:7101")


def _optional_address(value: str) -> str:
    return _address(value) if value else value


def _listed(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


Address = Annotated[str, AfterValidator(_address)]
OptionalAddress = Annotated[str, AfterValidator(_optional_address)]
# A list in a variable: comma-separated, or a JSON array.
Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class Misconfigured(Exception):
    """What a setting names cannot be used, and no restart will mend it; the message says why."""


class Documented(BaseSettings):
    """Read from the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        validate_default=True,
        defer_build=True,  # most of these classes are other services'
    )


class CommonSettings(Documented):
    """What every service has."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto writes for people on a terminal, JSON elsewhere"
    )
    termination_file: Path | None = Field(
        None,
        description="File that a start which fails writes its reason to, as Kubernetes reads from /dev/termination-log",
    )
    drain_timeout_s: float = Field(
        10.0, ge=0.1, le=3600, description="How long a stopping service may take to finish its work"
    )
    mode: Literal["production", "development"] = Field(
        "production",
        description="development allows loopback origins, tokens from /v1/dev/token, and CRASH_FILE",
    )
    crash_file: Path | None = Field(
        None,
        description="For tests, in development mode only: file that says where this process is to die"
        " (reliability.md, crash points)",
    )

    @model_validator(mode="after")
    def _dies_only_in_tests(self) -> Self:
        if self.crash_file is not None and self.mode != "development":
            raise ValueError(
                f"{PREFIX}CRASH_FILE has processes die, for tests: unset it, or set"
                f" {PREFIX}MODE=development"
            )
        return self


class TransportSettings(Documented):
    """gRPC: where a service listens, and its limits. Each service names the peers that it calls."""

    listen: Address = Field("127.0.0.1:0", description="Address that the service listens on")
    listen_also: OptionalAddress = Field(
        "",
        description="A second address that it listens on, such as unix:/path for neighbours on the"
        " same machine; empty means none",
    )
    health_listen: OptionalAddress = Field(
        "",
        description="Address for the health service alone, in plain text, for probes; empty means none",
    )
    max_message_bytes: int = Field(
        4 * 1024 * 1024, ge=1024 * 1024, le=64 * 1024 * 1024, description="Largest gRPC message"
    )
    keepalive_time_s: float = Field(
        5.0, ge=1, le=7200, description="Interval of a client's HTTP/2 pings"
    )
    keepalive_min_s: float = Field(
        2.0, ge=0.5, le=7200, description="Shortest interval of pings that a server tolerates"
    )
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="Age at which a server closes a connection so that clients find new replicas; 0 means never",
    )
    max_connection_age_grace_s: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="How long calls on a connection of that age may still take; more than the longest, which"
        " for the engine is a cancel of 60 s",
    )
    rpc_timeout_s: float = Field(
        10.0, ge=0.1, le=600, description="Deadline of a unary call that inherits none"
    )

    @model_validator(mode="after")
    def _pings_are_tolerated(self) -> Self:
        # At or below the minimum a server answers GOAWAY ENHANCE_YOUR_CALM.
        if self.keepalive_time_s <= self.keepalive_min_s:
            raise ValueError(
                f"{PREFIX}KEEPALIVE_TIME_S ({self.keepalive_time_s}) must be above "
                f"{PREFIX}KEEPALIVE_MIN_S ({self.keepalive_min_s})"
            )
        return self


class NatsSettings(Documented):
    """NATS JetStream, for engine and bridge."""

    nats_url: str = Field(
        "nats://127.0.0.1:4222", min_length=1, description="Servers, comma-separated"
    )
    nats_user: str = Field("", description="User name; empty means none")
    nats_password_file: Path | None = Field(None, description="File with the password")
    nats_replicas: int = Field(
        1, ge=1, le=5, description="Copies of every stream and bucket: 1, 3 or 5"
    )
    nats_timeout_s: float = Field(5.0, ge=0.1, le=60, description="Deadline of one request to NATS")
    log_shards: int = Field(
        1, ge=1, le=256, description="Streams that the log is spread over; fixed when they are made"
    )
    storage_look_s: float = Field(
        1.0,
        ge=0.1,
        le=3600,
        description="Interval in which the engine and the bridge look whether storage has lost what"
        " it held; the same for all engines",
    )

    @field_validator("nats_url")
    @classmethod
    def _without_web_sockets(cls, value: str) -> str:
        if any(each.strip().startswith(("ws:", "wss:")) for each in value.split(",")):
            raise ValueError("NATS over WebSockets is not supported; use nats:// or tls://")
        return value

    @field_validator("nats_replicas")
    @classmethod
    def _has_a_majority(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(
                "an even number of replicas survives no more than one fewer; use 1, 3 or 5"
            )
        return value


class UserTokenSettings(Documented):
    """Tokens of users, from the operator's identity provider."""

    user_jwks_url: str = Field("", description="URL of the provider's JWKS document")
    user_jwks_file: Path | None = Field(None, description="File with a JWKS document instead")
    user_secret_file: Path | None = Field(
        None, description="File with a secret shared with the issuer (HS256) instead"
    )
    user_issuer: str = Field(
        "", description="Exact iss that tokens must have; empty means any issuer with the key"
    )
    user_audience: str = Field(
        "factorychain-api",
        min_length=1,
        description="aud that tokens must have; never the trust domain",
    )
    tenant_claim: str = Field("tenant", min_length=1, description="Claim that holds the tenant")
    user_token_leeway_s: float = Field(
        5.0, ge=0, le=300, description="Tolerated difference between clocks"
    )

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        sources = [self.user_jwks_url, self.user_jwks_file, self.user_secret_file]
        if sum(bool(each) for each in sources) > 1:
            raise ValueError(
                f"set only one of {PREFIX}USER_JWKS_URL, {PREFIX}USER_JWKS_FILE and {PREFIX}USER_SECRET_FILE"
            )
        return self


class TxnTokenSettings(Documented):
    """Transaction tokens, which the engine signs and every layer verifies."""

    trust_domain: str = Field(
        "factorychain", min_length=1, description="aud of transaction tokens: one for each chain"
    )
    txn_jwks_file: Path | None = Field(
        None,
        description="File with the public keys of the engine, as JWKS; re-read when it changes",
    )
