"""What all four services share: configuration, lifecycle, gRPC, credentials, NATS, telemetry.

Not a public interface: agents and clients import `factorychain`.
"""

from __future__ import annotations

import os

# Read by grpc when it is first imported. Its fork handlers deadlock under asyncio (grpc#15334,
# #41768), and nothing here forks after importing grpc.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
