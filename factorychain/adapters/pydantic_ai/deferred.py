"""Calls that wait for somebody: asked for as a run ends, answered as the next one begins.

Invariant: an answer is given to the call that asked for it, by the model's id of that call, and says no
more than that kind of answer can.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

from factorychain.context import Interrupt
from factorychain.input import Json


def interrupt(waiting: DeferredToolRequests) -> Interrupt:
    """What ends the run with its requests."""
    return Interrupt(*waiting.approvals, *waiting.calls)


def results(
    waiting: DeferredToolRequests | None, resume: Mapping[str, Json] | None
) -> DeferredToolResults | None:
    """What was answered; None: the run does not go on for one that waited."""
    if waiting is None or resume is None:
        return None
    return waiting.build_results(calls=dict(resume))
