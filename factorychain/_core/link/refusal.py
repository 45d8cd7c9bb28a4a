"""Why a receiver closed a channel, and the same as an error of the tree and back."""

from __future__ import annotations

from dataclasses import dataclass

from factorychain.errors import ErrorCode, FactoryChainError, error_class

_RETRYABLE_CODES = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the receiver closed a channel; `retryable`: opening the run again may succeed."""

    reason: str
    message: str
    retryable: bool = False

    @classmethod
    def of(cls, error: FactoryChainError) -> Refusal:
        """An outage or a full receiver passes, everything else stays."""
        return cls(error.reason, error.message, error.code in _RETRYABLE_CODES)

    def to_error(self) -> FactoryChainError:
        """The error of the tree that this reason names."""
        kind = error_class(self.reason)
        return kind.restored(self.message, reason=self.reason, code=kind.default_code)
