"""HTTP on the edge: the upgrade to WebSocket, health, development tokens and the console.

Invariant: no answer depends on who asks, except by a token in the request; nothing is cached by
intermediaries; errors have the shape that they have on sockets.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import resources

import orjson
from aiohttp import hdrs, web

from factorychain._core.ids import DEFAULT_TENANT, Principal
from factorychain.errors import ErrorCode, FactoryChainError, InvalidField
from factorychain_bridge.edge import answers
from factorychain_bridge.edge.limits import TokenBucket
from factorychain_bridge.edge.origins import Origins
from factorychain_bridge.edge.transport import SUBPROTOCOL

CONSOLE_FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
    "/elements.js": ("elements.js", "text/javascript"),
    "/questions.js": ("questions.js", "text/javascript"),
    "/timeline.js": ("timeline.js", "text/javascript"),
    "/factorychain.js": ("factorychain.js", "text/javascript"),
}
TTL_DEFAULT_S = 3600.0
TTL_MAX_S = 86_400.0
_NAME_MAX_CHARS = 256
_TOKENS_PER_S, _TOKENS_BURST = 20.0, 200

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_STATUS = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.FAILED_PRECONDITION: 409,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.UNIMPLEMENTED: 501,
    ErrorCode.UNAVAILABLE: 503,
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` and `/healthz` say."""

    ready: bool
    details: Mapping[str, object]
    alive: bool = True
    """False: the process will not get well by itself, and its supervisor should replace it."""


class Routes:
    """The handlers, and what they need."""

    def __init__(
        self,
        *,
        origins: Origins,
        readiness: Callable[[], Awaitable[Readiness]],
        serve_socket: Callable[[web.Request], Awaitable[web.StreamResponse]],
        mint: Callable[[Principal, float], str] | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mint` makes a development token (principal, ttl_s); None outside of development."""
        self._origins = origins
        self._readiness = readiness
        self._serve_socket = serve_socket
        self._mint = mint
        self._token_bucket = TokenBucket(_TOKENS_PER_S, _TOKENS_BURST, monotonic)
        self._console = _console()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_errors], client_max_size=16 * 1024)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/v1/ws", self._ws)
        if self._mint is not None:
            app.router.add_post("/v1/dev/token", self._dev_token)
            app.router.add_route("OPTIONS", "/v1/dev/token", self._preflight)
        for path in CONSOLE_FILES:
            app.router.add_get(path, self._file)
        return app

    # --- health --------------------------------------------------------------------------------

    async def _healthz(self, _: web.Request) -> web.Response:
        alive = (await self._readiness()).alive
        return _json({"status": "alive" if alive else "failed"}, 200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        found = await self._readiness()
        return _json({"ready": found.ready, **found.details}, 200 if found.ready else 503)

    # --- WebSocket -----------------------------------------------------------------------------

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        self._check_origin(request)
        offered = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
        names = {name.strip() for line in offered for name in line.split(",")}
        if names and SUBPROTOCOL not in names:
            raise InvalidField("Sec-WebSocket-Protocol", f"must offer {SUBPROTOCOL}")
        return await self._serve_socket(request)

    def _check_origin(self, request: web.Request) -> None:
        if not self._origins.allow(request.headers.get(hdrs.ORIGIN)):
            raise FactoryChainError(
                "pages of this origin may not connect; FACTORYCHAIN_ALLOWED_ORIGINS lists those that may",
                reason="ORIGIN_NOT_ALLOWED",
                code=ErrorCode.PERMISSION_DENIED,
            )

    # --- development ---------------------------------------------------------------------------

    async def _dev_token(self, request: web.Request) -> web.Response:
        assert self._mint is not None, "the route exists only with it"
        self._check_origin(request)
        if not self._token_bucket.take():
            raise FactoryChainError(
                "too many tokens at once",
                reason="RATE_LIMITED",
                code=ErrorCode.RESOURCE_EXHAUSTED,
                retry_after_s=round(self._token_bucket.wait_s(), 2),
            )
        principal, ttl_s = _who(await request.read())
        token = self._mint(principal, ttl_s)
        found = {"token": token, "tenant": principal.tenant, "user": principal.user, "ttl_s": ttl_s}
        return _json(found, headers=_cors(request))

    async def _preflight(self, request: web.Request) -> web.Response:
        self._check_origin(request)
        allowed = {"Access-Control-Allow-Headers": "content-type", "Access-Control-Max-Age": "600"}
        return web.Response(status=204, headers=_cors(request) | allowed)

    # --- console -------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.Response:
        body, content_type = self._console[request.path]
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)


def _console() -> dict[str, tuple[bytes, str]]:
    folder = resources.files("factorychain_bridge.edge") / "console"
    return {
        path: ((folder / name).read_bytes(), content_type)
        for path, (name, content_type) in CONSOLE_FILES.items()
    }


def _who(body: bytes) -> tuple[Principal, float]:
    try:
        found: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidField("body", 'must be JSON: {"user": …, "tenant"?, "ttl_s"?}') from None
    if not isinstance(found, dict):
        raise InvalidField("body", "must be a JSON object")
    ttl_s = found.get("ttl_s", TTL_DEFAULT_S)
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s <= TTL_MAX_S:
        raise InvalidField("ttl_s", f"must be a number of seconds, at most {TTL_MAX_S:g}")
    tenant = _name(found.get("tenant", DEFAULT_TENANT), "tenant")
    return Principal(tenant, _name(found.get("user"), "user")), float(ttl_s)


def _name(value: object, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_MAX_CHARS:
        raise InvalidField(field, f"must be text of 1 to {_NAME_MAX_CHARS} characters")
    return value


def _cors(request: web.Request) -> dict[str, str]:
    origin = request.headers.get(hdrs.ORIGIN)
    return {} if origin is None else {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _json(
    found: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(found),
        status=status,
        content_type="application/json",
        headers={**_HEADERS, **(headers or {})},
    )


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except FactoryChainError as error:
        return _refusal(error, _STATUS.get(error.code, 500))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        message = f"{request.method} {request.path}: {error.reason}"
        known = FactoryChainError(message, reason="HTTP", code=_code(error.status))
        return _refusal(known, error.status)


def _code(status: int) -> ErrorCode:
    return next((code for code, known in _STATUS.items() if known == status), ErrorCode.UNKNOWN)


def _refusal(error: FactoryChainError, status: int) -> web.Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return _json({"error": answers.error(error)}, status, headers)
