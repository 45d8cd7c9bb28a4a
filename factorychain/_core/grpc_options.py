"""What both ends of a gRPC connection set, so that neither is surprised by the other.

Values are read from the settings: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
"""

from __future__ import annotations

from typing import TypeAlias

from factorychain._core.settings import TransportSettings

Options: TypeAlias = list[tuple[str, int | str]]

_METADATA_MAX_BYTES = 64 * 1024
_PING_TIMEOUT_MS = 10_000


def options_of_both_ends(settings: TransportSettings) -> Options:
    """The sizes that pass, and pings that find a peer gone which never said so."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", _METADATA_MAX_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _METADATA_MAX_BYTES),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
