"""The fixtures of the folder."""

from __future__ import annotations

from tests.wheel_fixture import checkout, wheel

__all__ = ["checkout", "wheel"]
