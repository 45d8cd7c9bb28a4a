"""The settings of each service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from factorychain._core.settings.gateway import GatewaySettings
from factorychain._core.settings.shared import (
    Address,
    CommonSettings,
    Documented,
    Listed,
    NatsSettings,
    OptionalAddress,
    TransportSettings,
    TxnTokenSettings,
    UserTokenSettings,
)

_KIB = 1024
_MIB = 1024 * _KIB
_LOG_MIN_BYTES = 16 * _MIB


class EngineSettings(
    CommonSettings, TransportSettings, NatsSettings, UserTokenSettings, TxnTokenSettings
):
    """The engine: who may run."""

    listen: Address = Field("127.0.0.1:7101", description="Address that the service listens on")
    agents_address: Address = Field("127.0.0.1:7102", description="gRPC target of the agents layer")
    emitter_address: Address = Field(
        "127.0.0.1:7103", description="gRPC target of the emitter layer"
    )
    txn_key_file: Path | None = Field(
        None, description="File with the private key (Ed25519) that signs transaction tokens"
    )
    default_agent: str = Field(
        "researcher",
        min_length=1,
        description="Agent of a start that names none; `factorychain up` makes it assistant where LLM_MODEL is"
        " set",
    )
    user_max_runs: int = Field(2, ge=1, le=1000, description="Active runs of one user")
    user_max_queued: int = Field(16, ge=0, le=1000, description="Queued runs of one user")
    limits_file: Path | None = Field(
        None,
        description="File (TOML) with other limits by plan, tenant and user; read again when it changes;"
        " see docs/limits.md",
    )
    plan_claim: str = Field(
        "plan",
        description="Claim of users' tokens that names a plan of LIMITS_FILE; empty means none",
    )
    max_runs_total: int = Field(
        0, ge=0, description="Active runs that this replica owns; 0 means no limit"
    )
    run_lifetime_s: float = Field(
        300.0, ge=1, le=86_400, description="How long a run may take from admission"
    )
    ask_max_s: float = Field(
        3600.0,
        ge=1,
        le=7 * 86_400,
        description="How long a run may wait for its user's answers, beside its lifetime",
    )
    run_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="How often a run whose agents are lost is started in all, if its agent is repeat_safe",
    )
    queue_max_s: float = Field(
        3600.0,
        ge=1,
        le=7 * 86_400,
        description="How long a run may wait for a place before it ends with QUEUE_TIMEOUT",
    )
    run_idle_s: float = Field(
        60.0, ge=1, le=86_400, description="How long a run may give no sign of life"
    )
    cleanup_interval_s: float = Field(
        5.0, ge=0.1, le=300, description="Interval of the clean-up loop"
    )
    heartbeat_ttl_s: float = Field(
        15.0, ge=1, le=300, description="Time after which a silent engine's runs are adopted"
    )
    agents_lost_after_s: float = Field(
        30.0, ge=1, le=600, description="Time after which unreachable agents count as lost"
    )
    records_max_age_s: float = Field(
        90 * 86_400, ge=0, description="Age at which records of runs and threads go; 0 means never"
    )
    state_value_max_bytes: int = Field(
        512 * _KIB, ge=_KIB, le=_MIB, description="Largest value that agents keep in a thread"
    )
    state_values_max: int = Field(
        256, ge=1, le=10_000, description="Values that agents may keep in one thread"
    )
    input_max_bytes: int = Field(256 * _KIB, ge=_KIB, le=2 * _MIB, description="Largest input")
    answer_max_bytes: int = Field(
        60 * _KIB, ge=256, le=_MIB, description="Largest answer to a question of an agent"
    )
    metadata_max_bytes: int = Field(
        4 * _KIB, ge=0, le=64 * _KIB, description="Largest metadata of a run or thread"
    )


class AgentsSettings(CommonSettings, TransportSettings, TxnTokenSettings, GatewaySettings):
    """Agents: runs their code."""

    listen: Address = Field("127.0.0.1:7102", description="Address that the service listens on")
    advertise_address: OptionalAddress = Field(
        "", description="Address under which others reach this replica; empty means listen's"
    )
    engine_address: Address = Field("127.0.0.1:7101", description="gRPC target of the engine layer")
    emitter_address: Address = Field(
        "127.0.0.1:7103", description="gRPC target of the emitter layer"
    )
    agent_modules: Listed = Field(
        (), description="Modules with agents, MODULE or MODULE:NAME, comma-separated"
    )
    docs_dir: Path | None = Field(
        None,
        description="Folder of documents for the researcher and the assistant; without one the"
        " researcher has the language reference",
    )
    assistant_instructions_file: Path | None = Field(
        None, description="File with what every assistant's model is told first"
    )
    assistant_window_tokens: int = Field(
        100_000,
        ge=1000,
        description="Tokens that fit the assistant's model with its answer; older turns are left out",
    )
    assistant_answer_max_tokens: int = Field(
        0, ge=0, description="Longest answer of the assistant's model; 0 means as long as it may"
    )
    assistant_steps_max: int = Field(
        16, ge=1, le=1000, description="Requests to the model in one run of the assistant"
    )
    isolation: Literal["process", "task"] = Field(
        "process",
        description="Where runs of agents that do not say it themselves are: each in a process of its own,"
        " or all as tasks of one, for agents that are trusted and for debuggers",
    )
    require_sandbox: bool = Field(
        False,
        description="Refuse to start where the kernel lacks a feature that confines agents, and refuse"
        " agents that run as tasks",
    )
    agent_memory_max_bytes: int = Field(
        512 * _MIB,
        ge=16 * _MIB,
        description="Memory of one run's process beyond what its agents share; agents may ask for less",
    )
    agent_cpu_max_s: float = Field(
        300.0, ge=1, le=86_400, description="Processor time of one run; agents may ask for less"
    )
    agent_open_files: int = Field(
        256, ge=32, le=65_536, description="Descriptors that one run's process may have open"
    )
    agent_file_max_bytes: int = Field(
        64 * _MIB, ge=0, description="Size of any one file that a run writes in its own folder"
    )
    agent_nice: int = Field(
        10,
        ge=0,
        le=19,
        description="Niceness of runs over that of the services, 19 the least weight",
    )
    agent_busy_nice: int = Field(
        20,
        ge=0,
        le=20,
        description="Niceness of runs for as long as they keep a processor busy, so that others that only"
        " wake up now and then need not wait for them; 20: they get what nobody else wants, as"
        " far as the service may undo that (CAP_SYS_NICE), else as 19; no more than"
        " FACTORYCHAIN_AGENT_NICE: as the others",
    )
    agent_processes: bool = Field(
        False,
        description="Whether agents that ask for it may start other processes, whose number no limit"
        " bounds",
    )
    agent_unreadable_paths: Listed = Field(
        (),
        description="Files and folders that no agent may read, whatever it declares, comma-separated;"
        " `factorychain up` adds its data directory",
    )
    max_runs: int = Field(1000, ge=1, le=100_000, description="Runs at once in this replica")
    cancel_grace_s: float = Field(
        10.0, ge=0.1, le=300, description="Time for an agent's code to stop when cancelled"
    )
    outage_max_s: float = Field(
        30.0,
        ge=1,
        le=86_400,
        description="How long a run goes on while nothing that it says gets into the log; then it ends as"
        " CHAIN_DEGRADED",
    )
    alive_interval_s: float = Field(
        5.0,
        ge=0.1,
        le=60,
        description="Interval in which a run's life is reported to the engine; shorter if RUN_IDLE_S needs it",
    )
    output_max_bytes: int = Field(256 * _KIB, ge=_KIB, le=2 * _MIB, description="Largest output")
    idle_processes_min: int = Field(
        2, ge=0, le=1000, description="Processes of each kind that wait for a run, at least"
    )
    idle_processes_max: int = Field(
        32, ge=0, le=1000, description="Processes of each kind that wait for a run, after bursts"
    )
    run_events_per_s: float = Field(
        100.0,
        ge=1,
        le=1_000_000,
        description="Events a second that a run's process may send in the long run; text that comes"
        " faster is joined, not slowed down",
    )
    run_events_burst: int = Field(
        1000, ge=1, le=1_000_000, description="Events that a run's process may send before that"
    )
    agent_silence_max_s: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="Time without a sign of life after which a run's process is ended",
    )

    @field_validator("agent_unreadable_paths")
    @classmethod
    def _are_absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        relative = [each for each in value if not Path(each).is_absolute()]
        if relative:
            raise ValueError(f"{relative[0]} is not an absolute path")
        return value


class EmitterSettings(CommonSettings, TransportSettings, TxnTokenSettings):
    """The emitter: what may be said."""

    listen: Address = Field("127.0.0.1:7103", description="Address that the service listens on")
    bridge_address: Address = Field("127.0.0.1:7104", description="gRPC target of the bridge layer")
    event_max_bytes: int = Field(64 * _KIB, ge=_KIB, le=_MIB, description="Largest event")
    output_max_bytes: int = Field(256 * _KIB, ge=_KIB, le=2 * _MIB, description="Largest output")
    run_window_bytes: int = Field(
        256 * _KIB, ge=64 * _KIB, le=16 * _MIB, description="Unacknowledged events of one run"
    )


class BridgeSettings(
    CommonSettings, TransportSettings, NatsSettings, UserTokenSettings, TxnTokenSettings
):
    """The bridge: where it goes, and the edge that clients connect to."""

    listen: Address = Field("127.0.0.1:7104", description="Address that the service listens on")
    engine_address: Address = Field("127.0.0.1:7101", description="gRPC target of the engine layer")
    edge_listen: Address = Field("127.0.0.1:8080", description="Address of HTTP and WebSockets")
    allowed_origins: Listed = Field(
        (), description="Exact origins of browsers, comma-separated; others are refused"
    )
    run_window_bytes: int = Field(
        256 * _KIB, ge=64 * _KIB, le=16 * _MIB, description="Unacknowledged events of one run"
    )
    log_max_age_s: float = Field(
        86_400, ge=60, le=31_536_000, description="Age at which events leave the log"
    )
    log_max_bytes: int = Field(
        -1,
        ge=-1,
        description="Size at which a shard discards its oldest events, from 16 MiB; -1 means no limit",
    )
    batch_max_bytes: int = Field(
        512 * _KIB, ge=64 * _KIB, le=_MIB, description="Largest message of the log"
    )
    socket_queue_bytes: int = Field(
        _MIB, ge=64 * _KIB, le=64 * _MIB, description="Waiting bytes at which a socket is too slow"
    )
    sockets_per_user: int = Field(16, ge=1, le=10_000, description="Sockets of one user")
    subscriptions_per_socket: int = Field(
        64, ge=1, le=10_000, description="Threads that one socket may be subscribed to"
    )
    frame_max_bytes: int = Field(
        320 * _KIB, ge=16 * _KIB, le=4 * _MIB, description="Largest frame from a client"
    )
    frame_max_bytes_unauthenticated: int = Field(
        16 * _KIB, ge=_KIB, le=_MIB, description="Largest frame before auth"
    )
    frames_per_s: float = Field(
        10.0, ge=0.1, le=10_000, description="Frames a second from a client"
    )
    frames_burst: int = Field(50, ge=1, le=100_000, description="Frames that may come at once")
    heartbeat_s: float = Field(25.0, ge=0.5, le=300, description="Interval of WebSocket pings")
    auth_timeout_s: float = Field(10.0, ge=0.1, le=300, description="Time in which auth must come")
    recovery_attempts: int = Field(
        3, ge=0, le=100, description="Attempts to recover before the integration has failed"
    )
    recovery_delay_s: float = Field(
        1.0, ge=0.01, le=300, description="Delay of the first attempt; it doubles"
    )
    live_poll_s: float = Field(
        2.0, ge=0.1, le=60, description="Interval in which a subscribed thread's end is confirmed"
    )

    @field_validator("log_max_bytes")
    @classmethod
    def _holds_many_batches(cls, value: int) -> int:
        # A log smaller than one message would take every event, and keep none.
        if -1 < value < _LOG_MIN_BYTES:
            raise ValueError(
                f"{value} bytes hold next to nothing; use at least {_LOG_MIN_BYTES} (16 MiB), or -1 for no limit"
            )
        return value


class CommandSettings(Documented):
    """What the `factorychain` command reads itself; an option on the command line goes first."""

    data_dir: Path = Field(
        Path(".factorychain"), description="Data directory of the chain on this machine, for --data"
    )
    token: SecretStr = Field(
        SecretStr(""), description="The user's token for run and agents, instead of one made here"
    )
