"""Calls that share an open stream: a message on it costs half of what opening a call does.

Which calls may be carried is said by their contracts. Both ends are the same to whoever calls or serves
them as calls by themselves: credentials, deadlines, errors and spans are those of the method.
"""

from __future__ import annotations

from factorychain._core.carried.calls import CarriedStream, CarriedUnary
from factorychain._core.carried.carrier import CallCarrier
from factorychain._core.carried.server import CarriedCalls, CarriesCalls

__all__ = ["CallCarrier", "CarriedCalls", "CarriedStream", "CarriedUnary", "CarriesCalls"]
