"""What an agent's requests to models consumed.

Invariant: the gateway counts what goes through it; here only the rest is counted, never anything twice.
"""

from __future__ import annotations

from pydantic_ai.messages import ModelResponse

from factorychain._instance.active import ActiveRun


def count(run: ActiveRun, response: ModelResponse) -> None:
    """Count one response."""
    gateway, asked = run.spec.gateway_url, response.provider_url or ""
    if gateway and asked.startswith(f"{gateway}/"):
        return
    spent = response.usage
    run.usage.add(
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        cached_input_tokens=spent.cache_read_tokens,
        reasoning_tokens=spent.output_reasoning_tokens,
        requests=1,
    )
