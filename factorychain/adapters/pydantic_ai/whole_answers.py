"""Models that answer at once, for a run that reads streams: what users see is streamed wherever it can be."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai import RunContext as PydanticContext
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import (
    CompletedStreamedResponse,
    Model,
    ModelRequestParameters,
    StreamedResponse,
)
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings


def streaming(model: Model[Any]) -> Model[Any] | None:
    """A model that can be asked for a stream; None if this one can."""
    asked = model
    while isinstance(asked, WrapperModel):
        asked = asked.wrapped
    if isinstance(asked, FunctionModel):
        whole = asked.stream_function is None
    else:
        whole = type(asked).request_stream is Model.request_stream
    return _WholeAnswers(model) if whole else None


class _WholeAnswers(WrapperModel):
    """Its answers are streams of one piece."""

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: PydanticContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        asked = model_request_parameters
        response = await self.wrapped.request(messages, model_settings, asked)
        yield CompletedStreamedResponse(
            response, model_request_parameters=asked, replay_events=True
        )
