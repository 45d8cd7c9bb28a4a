"""One request to a model, from its admission to its end: what it uses, its span, its metrics.

Invariant: what a request has used is charged while the answer comes, by an estimate, and put right at its
end by what the vendor says; a request that is given up in the middle is charged with the estimate.
"""

from __future__ import annotations

import asyncio
from typing import Final

from factorychain._core import genai
from factorychain._core.metrics import histogram
from factorychain._core.telemetry import SpanKind, span
from factorychain.input import Json
from factorychain_agents.gateway.accounts import Account
from factorychain_agents.gateway.budgets import Budgets, Exhausted
from factorychain_agents.gateway.endpoints import Endpoint
from factorychain_agents.gateway.readers import CHARS_PER_TOKEN, Counted, Reader, estimate
from factorychain_agents.gateway.refusals import Refusal
from factorychain_agents.gateway.upstreams import Upstream

_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
_SECONDS: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)

_duration = histogram(genai.OPERATION_DURATION, "How long requests to models took", bounds=_SECONDS)
_first = histogram(
    genai.TIME_TO_FIRST_CHUNK, "Until the first piece of a streamed answer", bounds=_SECONDS
)
_used = histogram(genai.TOKEN_USAGE, "Tokens of requests to models", "{token}", _TOKENS)


class ModelCall:
    """A context manager: the request is over when it is left."""

    def __init__(
        self,
        account: Account,
        budgets: Budgets,
        upstream: Upstream,
        endpoint: Endpoint,
        body: dict[str, Json],
        parent: str,
    ) -> None:
        """`parent` is the `traceparent` of what the agent does it in."""
        self.upstream = upstream
        self.endpoint = endpoint
        self.body = body
        self.account = account
        self.reader: Reader = endpoint.reader()
        self._budgets = budgets
        self._charged = 0
        self._sent = False
        self._refused = False
        self._first_s: float | None = None
        name, attributes = genai.model_request(
            endpoint.operation or "count_tokens",
            self.model,
            provider=upstream.protocol,
            server=upstream.base.host or "",
            port=upstream.base.port or 0,
            thread=account.ctx.thread,
            run=account.ctx.run,
        )
        self._span = span(name, kind=SpanKind.CLIENT, parent=parent, attributes=attributes)

    @property
    def model(self) -> str:
        """That is asked for."""
        found = self.body.get("model")
        return found[:128] if isinstance(found, str) else ""

    @property
    def streamed(self) -> bool:
        return self.body.get("stream") is True

    # --- what happens to it ---

    def attempt(self) -> None:
        """It is sent, once more: what was read before does not count."""
        self.reader = self.endpoint.reader()
        self._sent, self._refused = True, False

    def refused(self) -> None:
        """The vendor has refused it: nothing was used."""
        self._refused = True

    def began(self) -> None:
        """The first piece of the answer is there."""
        if self._first_s is None:
            self._first_s = self._span.duration_s

    def progress(self) -> Exhausted | None:
        """Charge what has come so far; the budget that it has used up."""
        if not self.endpoint.operation:
            return None
        counted = self.reader.counted
        said = self.reader.chars // CHARS_PER_TOKEN
        so_far = max(said, counted.output) + counted.input if counted else said
        if so_far > self._charged:
            self._charge(so_far)
        account = self.account
        return self._budgets.overspent(account.principal, account.used, account.limits)

    # --- from its admission to its end ---

    def __enter__(self) -> ModelCall:
        if self.endpoint.operation:
            self._budgets.request(self.account.principal, self.account.used)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        counted = self._counted()
        if self.endpoint.operation and counted is not None:
            self._charge(counted.total)
            self.account.count(counted)
        self._record(counted, error)

    def _charge(self, tokens: int) -> None:
        account = self.account
        self._budgets.spend(account.principal, account.used, tokens - self._charged)
        self._charged = tokens

    def _counted(self) -> Counted | None:
        """What it has used; None if the vendor has not worked for it."""
        if not self._sent or self._refused:
            return None
        reader, found = self.reader, self.reader.counted
        if found is not None and reader.ended:
            return found
        counted = found or Counted(input=estimate(dict(self.body)))
        counted.output = max(counted.output, reader.chars // CHARS_PER_TOKEN)
        return counted

    def _record(self, counted: Counted | None, error: BaseException | None) -> None:
        attributes = {
            genai.OPERATION: self.endpoint.operation or "count_tokens",
            genai.PROVIDER: self.upstream.protocol,
            genai.REQUEST_MODEL: self.model,
        }
        if counted is not None:
            self._span.set_attributes(genai.answered(self.reader.model, self.reader.finish))
            self._span.set_attributes(genai.usage(counted.input, counted.output))
            _used.record(counted.input, attributes | {genai.TOKEN_TYPE: "input"})
            _used.record(counted.output, attributes | {genai.TOKEN_TYPE: "output"})
        if self._first_s is not None and self.streamed:
            _first.record(self._first_s, attributes)
        problem = "" if self.reader.ended and counted is not None else _problem(error)
        if problem:
            attributes[genai.ERROR_TYPE] = problem
            self._span.set(genai.ERROR_TYPE, problem)
            self._span.fault = None if problem == _CANCELLED else problem
        _duration.record(self._span.duration_s, attributes)
        self._span.end()


_CANCELLED: Final = "cancelled"


def _problem(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, Refusal):
        return error.reason
    gone = isinstance(error, asyncio.CancelledError | ConnectionError)
    return _CANCELLED if gone else type(error).__name__
