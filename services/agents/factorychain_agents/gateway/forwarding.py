"""Requests of runs to other services, with the secret that the operator maps for their user.

Invariant: a request leaves for the service's own base URL and nowhere else, with this principal's secret
and without anything of the client's credentials; what comes back carries no secret, and no cookie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from yarl import URL

from factorychain._core.logging import get_logger
from factorychain_agents.gateway.accounts import Account
from factorychain_agents.gateway.asking import BROKEN, SILENT, Patience
from factorychain_agents.gateway.incoming import read_body
from factorychain_agents.gateway.outgoing import proxy_of
from factorychain_agents.gateway.refusals import Refusal
from factorychain_agents.gateway.secret import Remover
from factorychain_agents.gateway.services import MappedService

log = get_logger(__name__)

_HOP_BY_HOP = """
connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer
transfer-encoding upgrade
"""
_CLIENTS_OWN = """
accept-encoding authorization content-length cookie expect forwarded host traceparent tracestate x-api-key
"""
_NOT_SENT: Final = frozenset((_HOP_BY_HOP + _CLIENTS_OWN).split())
_NOT_ANSWERED: Final = frozenset(
    (_HOP_BY_HOP + "content-encoding content-length set-cookie").split()
)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Forwarder:
    """Serves requests to other services."""

    def __init__(
        self, session: aiohttp.ClientSession, patience: Patience, request_max_bytes: int
    ) -> None:
        self._session = session
        self._patience = patience
        self._request_max_bytes = request_max_bytes

    async def serve(
        self, request: web.BaseRequest, account: Account, service: MappedService, path: str
    ) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: the client's.
            account: of the run whose key it came with.
            service: whom it is for.
            path: behind the service's name, as the client has written it, with its query.

        Raises:
            Refusal: it is not answered by the service, and nothing was passed on.
        """
        secret = service.secret_of(account.principal)
        if not secret:
            text = f"The operator has mapped no secret of {service.name!r} for this user"
            raise Refusal(404, "CREDENTIAL_NOT_FOUND", text)
        if request.method not in _METHODS:
            raise Refusal(405, "CREDENTIAL_NOT_FOUND", f"{request.method} is not passed on")
        url = below(service.base, path)
        added = service.headers_with(secret)
        remover = Remover([secret])
        async with account.places:
            body = await read_body(request, self._request_max_bytes)
            try:
                asked = await self._session.request(
                    request.method,
                    url,
                    data=body or None,
                    headers=_sent(request.headers, added),
                    proxy=proxy_of(service.base),
                    allow_redirects=False,
                    timeout=self._patience.timeout,
                )
            except (*BROKEN, SILENT) as error:
                log.warning("a service cannot be reached", service=service.name, error=str(error))
                raise Refusal(503, "SERVICE_UNAVAILABLE") from error
            try:
                return await self._pass(request, asked, remover)
            finally:
                asked.close()

    async def _pass(
        self, request: web.BaseRequest, asked: aiohttp.ClientResponse, remover: Remover
    ) -> web.StreamResponse:
        headers = [
            (name, remover.whole(value.encode()).decode())
            for name, value in asked.headers.items()
            if name.lower() not in _NOT_ANSWERED
        ]
        response = web.StreamResponse(status=asked.status)
        response.headers.extend(headers)
        left_bytes = self._patience.answer_max_bytes
        await response.prepare(request)
        try:
            async for data in asked.content.iter_any():
                left_bytes -= len(data)
                if left_bytes < 0:
                    raise ConnectionError("the answer is larger than the operator allows")
                await response.write(remover.feed(data))
        except (*BROKEN, SILENT) as error:
            # What was promised by the headers does not come: only a broken connection says so.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionError("the service broke off its answer") from error
        await response.write(remover.finish())
        await response.write_eof()
        return response


def below(base: URL, path: str) -> URL:
    """A path as the client has written it, behind the base URL.

    Raises:
        Refusal: it would lead out of there.
    """
    plain, _, query = path.partition("?")
    decoded = unquote(plain)
    if ".." in decoded.replace("\\", "/").split("/") or not decoded.isprintable():
        raise Refusal(400, "MODEL_REQUEST_INVALID", "The path leads out of the service")
    asked = f"?{query}" if query else ""
    return URL(f"{base}/{plain}{asked}" if plain else f"{base}{asked}", encoded=True)


def _sent(headers: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """The client's headers, those that the operator sets in place of its own."""
    own = {each.lower() for each in added}
    named = {each.strip().lower() for each in headers.get("Connection", "").split(",")}
    left_out = _NOT_SENT | own | named
    kept = {name: value for name, value in headers.items() if name.lower() not in left_out}
    return kept | dict(added) | {"Accept-Encoding": "identity"}
