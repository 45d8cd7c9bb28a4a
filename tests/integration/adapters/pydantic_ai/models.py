"""Models of the vendor, and what a run with them looks like in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factorychain.testing import RunResult
from tests.vendor import Vendor

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model
    from pydantic_ai.profiles import ModelProfile


class Models:
    """Models of the vendor; their connections are closed with the test.

    Clients are imported when they are needed: that takes longer than all else that tests import.
    """

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._clients: list[AsyncOpenAI | AsyncAnthropic] = []

    def __call__(
        self, protocol: str = "chat", max_retries: int = 2, profile: ModelProfile | None = None
    ) -> Model:
        if protocol == "anthropic":
            return self._of_anthropic()
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider

        client = AsyncOpenAI(
            base_url=self._vendor.openai_url, api_key=self._vendor.key, max_retries=max_retries
        )
        self._clients.append(client)
        kind = OpenAIChatModel if protocol == "chat" else OpenAIResponsesModel
        return kind("gpt-test", provider=OpenAIProvider(openai_client=client), profile=profile)

    def _of_anthropic(self) -> Model:
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client = AsyncAnthropic(base_url=self._vendor.url, api_key=self._vendor.key)
        self._clients.append(client)
        return AnthropicModel("claude-test", provider=AnthropicProvider(anthropic_client=client))

    async def close(self) -> None:
        for each in self._clients:
            await each.close()


def outline(result: RunResult) -> list[str]:
    """What happened, in short: `text` for deltas, `name(call)` and `name=` for tools."""
    told = {
        "message_delta": lambda data: f"say {data['text']}",
        "thinking_delta": lambda data: f"think {data['text']}",
        "tool_executing": lambda data: f"{data['tool']}({data['arguments']})",
        "tool_completed": lambda data: (
            f"{data['tool']}={data['result'] if data['ok'] else data['error']}"
        ),
        "custom": lambda data: f"{data['name']}: {data['data']}",
        "agent_failed": lambda data: f"failed {data['reason']}",
    }
    return [told[each.type](each.data) for each in result.events if each.type in told]
