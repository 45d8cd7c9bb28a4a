"""What an interrupted run asks, checked by its host: an answer that could never be taken must not be waited for."""

from __future__ import annotations

from factorychain._core.answer_schema import BadSchema, check_schema
from factorychain._instance.spec import Outcome, OutcomeKind


def checked(outcome: Outcome) -> Outcome:
    """The outcome; a failure if answers cannot be checked against a schema in it."""
    for asked in outcome.pending:
        try:
            check_schema(asked.schema_json)
        except BadSchema as error:
            text = f"The agent's request {asked.request} has a schema that cannot be used: {error}"
            return Outcome(
                OutcomeKind.FAILED, reason="INVALID_SCHEMA", text=text, usage=outcome.usage
            )
    return outcome
