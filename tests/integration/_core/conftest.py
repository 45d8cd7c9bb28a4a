"""Fixtures of the tests of what all services share."""

from __future__ import annotations

from tests.certificates import certificates
from tests.grpc_fixture import wire
from tests.span_recorder import spans

__all__ = ["certificates", "spans", "wire"]
