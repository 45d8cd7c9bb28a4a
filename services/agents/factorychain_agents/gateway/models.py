"""Requests of runs to models: checked, admitted, asked, answered.

Invariant: a run reaches the models that the operator allows, by the endpoints that are there for runs,
within its budgets; the answer goes to the client that asked and to nobody else.
"""

from __future__ import annotations

from typing import Final

import aiohttp
import orjson
from aiohttp import web

from factorychain._core.telemetry import parse_traceparent
from factorychain._instance.model_troubles import REASON_HEADER
from factorychain.input import Json
from factorychain_agents.gateway.accounts import Account
from factorychain_agents.gateway.asking import (
    EVENT_STREAM,
    Answer,
    Asker,
    Patience,
    VendorRefusal,
    read_bounded,
)
from factorychain_agents.gateway.budgets import Budgets
from factorychain_agents.gateway.call import ModelCall
from factorychain_agents.gateway.endpoints import MODELS, Endpoint, endpoint_of
from factorychain_agents.gateway.incoming import read_body
from factorychain_agents.gateway.outgoing import proxy_of
from factorychain_agents.gateway.passing import Passing
from factorychain_agents.gateway.refusals import Refusal, unavailable, used_up
from factorychain_agents.gateway.upstreams import Upstream

_KEPT: Final = frozenset(
    {"accept", "anthropic-beta", "anthropic-version", "content-type", "openai-beta", "user-agent"}
)
"""Of the client's headers. Not `idempotency-key`: to the vendor all runs are one client."""
_ANSWERED: Final = ("Content-Type", "x-request-id", "request-id")
_LIST_MAX_BYTES: Final = 4 * 1024 * 1024


class Models:
    """Serves requests to models."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        budgets: Budgets,
        patience: Patience,
        request_max_bytes: int,
    ) -> None:
        self._session = session
        self._budgets = budgets
        self._patience = patience
        self._request_max_bytes = request_max_bytes

    async def serve(
        self, request: web.BaseRequest, account: Account, upstream: Upstream, path: str
    ) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: the client's.
            account: of the run whose key it came with.
            upstream: whom it is for.
            path: what it is for, behind the version.

        Raises:
            Refusal: it is not answered by a model, and nothing was passed on.
        """
        if request.method == "GET" and path == MODELS:
            return await self._list(upstream, _headers(request) | upstream.headers())
        endpoint = endpoint_of(upstream.protocol, path)
        if endpoint is None or request.method != "POST":
            text = f"{request.method} {path} is nothing that runs may ask for"
            raise Refusal(404, "MODEL_NOT_ALLOWED", text)
        # A place before the body: what waits for one must not fill this process's memory.
        async with account.places:
            body = self._checked(await read_body(request, self._request_max_bytes), upstream)
            return await self._ask(request, account, upstream, endpoint, body)

    async def _ask(
        self,
        request: web.BaseRequest,
        account: Account,
        upstream: Upstream,
        endpoint: Endpoint,
        body: dict[str, Json],
    ) -> web.StreamResponse:
        exhausted = self._budgets.exhausted(account.principal, account.used, account.limits)
        if exhausted is not None and endpoint.operation:
            raise used_up(exhausted)
        hides_usage = endpoint.asks_usage and _ask_for_usage(body, upstream)
        parent = _parent(request, account.trace)
        with ModelCall(account, self._budgets, upstream, endpoint, body, parent) as call:
            asker = Asker(self._session, self._patience, call, _headers(request))
            try:
                answer = await asker.ask()
            except VendorRefusal as refused:
                return _refused(refused)
            async with answer:
                return await self._answer(request, call, answer, hides_usage=hides_usage)

    async def _answer(
        self, request: web.BaseRequest, call: ModelCall, answer: Answer, *, hides_usage: bool
    ) -> web.StreamResponse:
        headers = {
            name: answer.response.headers[name]
            for name in _ANSWERED
            if name in answer.response.headers
        }
        if answer.frames is None:
            return web.Response(body=answer.whole, headers=headers)
        max_bytes = self._patience.answer_max_bytes
        passing = Passing(call, answer, hides_usage=hides_usage, max_bytes=max_bytes)
        response = web.StreamResponse(headers=headers | {"Content-Type": EVENT_STREAM})
        await response.prepare(request)
        await passing.to(response)
        return response

    def _checked(self, data: bytes, upstream: Upstream) -> dict[str, Json]:
        """The body, as it is sent on: written anew, so that the vendor reads what was checked here."""
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Refusal(400, "MODEL_REQUEST_INVALID", "The request is not JSON") from error
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(model, str) or not model:
            raise Refusal(400, "MODEL_REQUEST_INVALID", "The request names no model")
        if not upstream.allows(model):
            allowed = ", ".join(upstream.models)
            text = f"The model {model[:128]!r} is not among those that runs may use: {allowed}"
            raise Refusal(404, "MODEL_NOT_ALLOWED", text)
        if body.get("background"):
            text = "Answers in the background would outlive their run: leave `background` out"
            raise Refusal(400, "MODEL_REQUEST_INVALID", text)
        assert isinstance(body, dict), "it has a model"
        return body

    async def _list(self, upstream: Upstream, headers: dict[str, str]) -> web.Response:
        """The models that runs may use."""
        try:
            async with self._session.get(
                upstream.url(MODELS),
                headers=headers,
                proxy=proxy_of(upstream.base),
                allow_redirects=False,
                timeout=self._patience.timeout,
            ) as response:
                found = await read_bounded(response, _LIST_MAX_BYTES)
                listed = orjson.loads(found or b"null") if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as error:
            raise unavailable() from error
        if not isinstance(listed, dict) or not isinstance(listed.get("data"), list):
            raise unavailable()
        listed["data"] = [
            each
            for each in listed["data"]
            if isinstance(each, dict) and upstream.allows(str(each.get("id")))
        ]
        return web.Response(body=orjson.dumps(listed), content_type="application/json")


def _ask_for_usage(body: dict[str, Json], upstream: Upstream) -> bool:
    """Ask for the usage of a stream if the client has not; whether it was asked for here."""
    options = body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    if asked or body.get("stream") is not True or not upstream.stream_usage:
        return False
    kept = options if isinstance(options, dict) else {}
    body["stream_options"] = {**kept, "include_usage": True}
    return True


def _headers(request: web.BaseRequest) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name.lower() in _KEPT or name.lower().startswith("x-stainless-")
    }


def _parent(request: web.BaseRequest, trace: str) -> str:
    """What the request was made in: the tool call that the client names, if it is of the run's trace."""
    named = request.headers.get("traceparent", "")
    span, own = parse_traceparent(named), parse_traceparent(trace)
    return named if span and own and span.trace_id == own.trace_id else trace


def _refused(refused: VendorRefusal) -> web.Response:
    headers = {REASON_HEADER: "MODEL_REQUEST_REFUSED", "x-should-retry": "false"}
    if refused.content_type:
        headers["Content-Type"] = refused.content_type
    return web.Response(status=refused.status, body=refused.body, headers=headers)
