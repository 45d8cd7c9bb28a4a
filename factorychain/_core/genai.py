"""Names of OpenTelemetry's GenAI semantic conventions, pinned here.

All of them are still in development there (semantic-conventions 1.4x, gen-ai): a change of theirs
is a change of this module alone. Message content is never an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # agent processes use these names without loading OpenTelemetry
    from opentelemetry.util.types import AttributeValue

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"  # the thread
TOOL = "gen_ai.tool.name"
TOOL_CALL = "gen_ai.tool.call.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - of a model
SERVER = "server.address"
PORT = "server.port"
ERROR_TYPE = "error.type"

# Metrics.
OPERATION_DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - of a model
TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"

# Our own, beside them.
RUN = "factorychain.run"
ATTEMPT = "factorychain.attempt"


def invoke_agent(
    agent: str, *, thread: str, run: str, attempt: int
) -> tuple[str, dict[str, AttributeValue]]:
    """Name and attributes of the INTERNAL span around a run of an agent."""
    return f"invoke_agent {agent}", {
        OPERATION: "invoke_agent",
        AGENT: agent,
        CONVERSATION: thread,
        RUN: run,
        ATTEMPT: attempt,
    }


def execute_tool(tool: str, *, call: str, run: str) -> tuple[str, dict[str, AttributeValue]]:
    """Name and attributes of the INTERNAL span around a call of a tool."""
    return f"execute_tool {tool}", {
        OPERATION: "execute_tool",
        TOOL: tool,
        TOOL_CALL: call,
        RUN: run,
    }


def model_request(
    operation: str, model: str, *, provider: str, server: str, port: int, thread: str, run: str
) -> tuple[str, dict[str, AttributeValue]]:
    """Name and attributes of the CLIENT span around a request to a model, such as `chat gpt-5`."""
    return f"{operation} {model}".rstrip(), {
        OPERATION: operation,
        PROVIDER: provider,
        REQUEST_MODEL: model,
        SERVER: server,
        PORT: port,
        CONVERSATION: thread,
        RUN: run,
    }


def answered(model: str, finish: str) -> dict[str, AttributeValue]:
    """Attributes of what a model has answered."""
    found: dict[str, AttributeValue] = {RESPONSE_MODEL: model} if model else {}
    return found | ({FINISH_REASONS: [finish]} if finish else {})


def usage(input_tokens: int, output_tokens: int) -> dict[str, AttributeValue]:
    """Attributes of the tokens that a run used."""
    return {INPUT_TOKENS: input_tokens, OUTPUT_TOKENS: output_tokens}
