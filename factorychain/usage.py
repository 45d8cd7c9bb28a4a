"""What a run consumed, counted by whoever calls models for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """Counts of one run. An agent adds to them as it goes; the ending reports them."""

    input_tokens: int = 0
    """Tokens sent to models."""
    output_tokens: int = 0
    """Tokens produced by models."""
    cached_input_tokens: int = 0
    """Of the input tokens, those that the vendor had cached."""
    reasoning_tokens: int = 0
    """Of the output tokens, those spent on reasoning."""
    requests: int = 0
    """Requests to models."""

    def __add__(self, other: Usage) -> Usage:
        """What both are together."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
        )

    def add(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_input_tokens: int = 0,
        reasoning_tokens: int = 0,
        requests: int = 0,
    ) -> None:
        """Add what one or several requests consumed; a count is never negative."""
        added = (input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, requests)
        if min(added) < 0:
            raise ValueError("usage only grows: a count must not be negative")
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cached_input_tokens += cached_input_tokens
        self.reasoning_tokens += reasoning_tokens
        self.requests += requests
