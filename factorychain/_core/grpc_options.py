"""What both ends of a gRPC connection set, so that neither is surprised by the other.

Values are read from the settings: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
"""

from __future__ import annotations

from typing import TypeAlias

from factorychain._core.settings import TransportSettings

Options: TypeAlias = list[tuple[str, int | str]]

_METADATA_MAX_BYTES = 64 * 1024
PING_TIMEOUT_S = 5.0
"""A peer that does not answer a ping for so long is gone, as is one that stands still."""


def options_of_both_ends(settings: TransportSettings) -> Options:
    """The sizes that pass, and pings that find a peer gone which never said so: at the latest after the
    interval of pings and the time that an answer may take.
    """
    ping_timeout_ms = int(PING_TIMEOUT_S * 1000)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", _METADATA_MAX_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _METADATA_MAX_BYTES),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # Where data flows other pings are under way, which would be waited for a minute.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
