"""Fixtures of the tests of what all services share."""

from __future__ import annotations

from tests.span_recorder import spans

__all__ = ["spans"]
