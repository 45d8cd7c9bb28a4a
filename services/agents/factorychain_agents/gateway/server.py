"""The gateway as a component: a port of this machine, where runs ask and the operator's keys are added.

Invariant: nothing is answered but to the key of a run that is alive, and for that run alone.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

import aiohttp
from aiohttp import web

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter
from factorychain._core.settings import GatewaySettings
from factorychain._instance import model_access
from factorychain_agents.gateway import outgoing
from factorychain_agents.gateway.accounts import Account, Accounts
from factorychain_agents.gateway.asking import Patience
from factorychain_agents.gateway.budgets import BudgetLimits, Budgets
from factorychain_agents.gateway.endpoints import form_of
from factorychain_agents.gateway.forwarding import Forwarder
from factorychain_agents.gateway.incoming import key_of
from factorychain_agents.gateway.models import Models
from factorychain_agents.gateway.refusals import Form, Refusal, unavailable
from factorychain_agents.gateway.services import MappedServices, services_of
from factorychain_agents.gateway.upstreams import Protocol, Upstream, Upstreams, upstreams_of

log = get_logger(__name__)

_refused = counter(
    "factorychain.gateway.refusals", "Requests that the gateway has refused, by reason", "{request}"
)

_BACKLOG: Final = 1024
_VERSION: Final = "v1"
_ANTHROPIC: Final = "anthropic"
_NAMED: Final = "u"
_SERVICE: Final = "c"


class Gateway:
    """A component."""

    name = "model gateway"

    def __init__(self, settings: GatewaySettings) -> None:
        """Takes its port, so that what leads there is known before any agent's module is imported.

        Raises:
            Misconfigured: what the operator has configured cannot be used.
            OSError: the port is taken.
        """
        self.upstreams: Upstreams = upstreams_of(settings)
        self.services: MappedServices = services_of(settings)
        self._settings = settings
        limits = BudgetLimits.of(settings)
        self._accounts = Accounts(settings.llm_run_max_concurrent, limits)
        self._budgets = Budgets(limits, time.time)
        self._socket = _bound(settings.llm_listen)
        self._before: dict[str, str | None] = {}
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._models: Models | None = None
        self._forwarder: Forwarder | None = None

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Where runs find it."""
        host = "[::1]" if self._socket.family == socket.AF_INET6 else "127.0.0.1"
        return f"http://{host}:{self.port}"

    @property
    def healthy(self) -> bool:
        return True

    def lead(self) -> None:
        """Let clients that are made in this process, outside of any run, be made for the gateway."""
        for name, value in model_access.environment(self.url).items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        model_access.lead_clients()

    async def start(self) -> None:
        patience, most = Patience.of(self._settings), self._settings.llm_request_max_bytes
        self._session = outgoing.session()
        self._models = Models(self._session, self._budgets, patience, most)
        self._forwarder = Forwarder(self._session, patience, most)
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, backlog=_BACKLOG).start()
        log.info("the model gateway serves", upstreams=[each.name for each in self.upstreams])

    def release(self) -> None:
        """Undo what was done when it was made."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()
        self._socket.close()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self.release()
        if self._session is not None:
            await self._session.close()

    def open(self, ctx: UserExecutionContext, trace: str) -> Account:
        """A key for a run that begins; to be closed when its code is over."""
        services = self.services.of(ctx.principal)
        paths = [(name, f"/{_SERVICE}/{name}") for name in services]
        for each in self.upstreams:
            version = f"/{_VERSION}" if each.protocol == "openai" else ""
            paths.append((each.name, f"/{_NAMED}/{each.name}{version}"))
        return self._accounts.open(ctx, trace, self.url, tuple(paths))

    # --- requests ---

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.raw_path.lstrip("/")
        form: Form = "messages" if raw.startswith(f"{_ANTHROPIC}/") else "chat"
        try:
            account = self._account(request)
            with account.request():
                return await self._route(request, account, raw)
        except Refusal as refusal:
            _refused.add(1, {"reason": refusal.reason})
            status, headers = int(refusal.status), refusal.headers()
            return web.Response(
                status=status, body=refusal.body(self._form(raw, form)), headers=headers
            )
        except ConnectionError:
            # The client is gone, or must see that its answer broke off.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        except Exception:
            log.exception("a request through the gateway failed")
            fault = unavailable()
            return web.Response(status=500, body=fault.body(form), headers=fault.headers())

    def _account(self, request: web.BaseRequest) -> Account:
        key = key_of(request)
        account = self._accounts.of(key)
        if account is not None:
            return account
        text = "This key is of no run that is alive"
        if key == model_access.PLACEHOLDER:
            text = (
                "This request was made outside of a run, or by a client library that is not known here:"
                " make the client in `run`, where OPENAI_API_KEY and ANTHROPIC_API_KEY are the run's own"
            )
        raise Refusal(401, "GATEWAY_KEY_INVALID", text)

    async def _route(
        self, request: web.BaseRequest, account: Account, raw: str
    ) -> web.StreamResponse:
        assert self._models is not None, "start has made it"
        assert self._forwarder is not None, "start has made it"
        first, _, rest = raw.partition("/")
        if first == _SERVICE:
            name, _, rest = rest.partition("/")
            name, mark, query = name.partition("?")
            service = self.services.named(name)
            if service is None:
                text = f"No credential is called {name[:64]!r} for this user"
                raise Refusal(404, "CREDENTIAL_NOT_FOUND", text)
            return await self._forwarder.serve(request, account, service, rest + mark + query)
        upstream, path = self._upstream(raw)
        return await self._models.serve(request, account, upstream, path)

    def _upstream(self, raw: str) -> tuple[Upstream, str]:
        """Whom a path is for, and what is behind the version in it."""
        parts = raw.partition("?")[0].split("/")
        found: Upstream | None
        if parts[0] == _NAMED and len(parts) > 2:
            found, left = self.upstreams.named(parts[1]), parts[2:]
            missing = f"No server of models is called {parts[1][:64]!r}"
        else:
            protocol: Protocol = "anthropic" if parts[0] == _ANTHROPIC else "openai"
            found, left = self.upstreams.first(protocol), parts[parts[0] == _ANTHROPIC :]
            missing = (
                f"The operator has configured no server of models that speaks {protocol}'s protocol"
                " (FACTORYCHAIN_LLM_API_KEY, FACTORYCHAIN_LLM_UPSTREAMS_FILE)"
            )
        if found is None:
            raise Refusal(404, "MODEL_NOT_ALLOWED", missing)
        if left[0] != _VERSION:
            raise Refusal(
                404, "MODEL_NOT_ALLOWED", f"/{'/'.join(left)[:64]} is not here; begin with /v1"
            )
        return found, "/".join(left[1:])

    def _form(self, raw: str, otherwise: Form) -> Form:
        """The form in which the client expects a refusal."""
        try:
            upstream, path = self._upstream(raw)
        except Refusal:
            return otherwise
        return form_of(upstream.protocol, path)


def gateway_of(settings: GatewaySettings) -> Gateway | None:
    """The gateway that the operator has configured, and this process led to it; None without one.

    Raises:
        Misconfigured: what it is configured with cannot be used.
    """
    given = (
        settings.llm_base_url,
        settings.llm_api_key.get_secret_value(),
        settings.llm_api_key_file,
        settings.llm_upstreams_file,
        settings.credentials_file,
    )
    if not any(given):
        return None
    gateway = Gateway(settings)
    gateway.lead()
    return gateway


def secret_paths(settings: GatewaySettings) -> tuple[str, ...]:
    """Files that no run may read. What was inherited as a descriptor has no path."""
    files = (settings.llm_api_key_file, settings.llm_upstreams_file, settings.credentials_file)
    found = (str(each.absolute()) for each in files if each is not None)
    return tuple(each for each in found if not each.startswith(("/dev/", "/proc/")))


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, int(port)))
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
