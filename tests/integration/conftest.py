"""Fixtures of all integration tests."""

from __future__ import annotations

from tests.nats_fixture import bridge_js, engine_js, nats_server

__all__ = ["bridge_js", "engine_js", "nats_server"]
