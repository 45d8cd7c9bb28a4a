"""Fixtures of the tests of what all services share."""

from __future__ import annotations

from tests.certificates import certificates
from tests.grpc_fixture import wire
from tests.name_server import name, quick_lookups
from tests.span_recorder import spans

__all__ = ["certificates", "name", "quick_lookups", "spans", "wire"]
