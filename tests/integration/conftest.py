"""Fixtures of all integration tests."""

from __future__ import annotations

from tests.nats_fixture import bridge_js, engine_js, nats_server
from tests.wheel_fixture import checkout, wheel

__all__ = ["bridge_js", "checkout", "engine_js", "nats_server", "wheel"]
