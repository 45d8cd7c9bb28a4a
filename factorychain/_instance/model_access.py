"""How clients of models find the gateway in a run, unmodified: by variables of the environment.

A client that was made when its module was imported exists before any run, and holds a placeholder instead
of a key. Invariant: a request that carries it to the gateway gets the key of the run that it is made in,
when it is sent; no other request is touched, and no key goes anywhere but to the gateway.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

from factorychain._instance.active import current_run
from factorychain._instance.spec import RunSpec

PLACEHOLDER: Final = "fc-key-of-the-run"
_PATHS: Final = {"OPENAI": "/v1", "ANTHROPIC": "/anthropic"}
_LIBRARIES: Final = ("httpx", "httpx2")
"""What the clients of vendors send requests with."""
_CLIENTS: Final = ("Client", "AsyncClient")
_MARK: Final = "_factorychain_leads"
_R = TypeVar("_R")

_here: RunSpec | None = None
"""The run of this process; None in a process of many."""


class Noted:
    """Whether requests to models, since this was made, went through the gateway, which counts them."""

    def __init__(self) -> None:
        self.through_gateway = False


_noted: ContextVar[Noted | None] = ContextVar("factorychain_noted", default=None)


def note_requests() -> Noted:
    """To be called before a request, in the context that it is made in."""
    noted = Noted()
    _noted.set(noted)
    return noted


class _Request(Protocol):
    """A request of these libraries, as far as it matters here."""

    @property
    def url(self) -> object: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...


def environment(url: str, key: str = PLACEHOLDER, besides: Iterable[str] = ()) -> dict[str, str]:
    """The variables by which clients find the gateway.

    Args:
        url: where it is.
        key: of the run.
        besides: names that the agent declares for itself: of that vendor none is set.
    """
    own = set(besides)
    found: dict[str, str] = {}
    for vendor, path in _PATHS.items():
        pair = {f"{vendor}_BASE_URL": url + path, f"{vendor}_API_KEY": key}
        if not own & pair.keys():
            found |= pair
    return found


def enter(spec: RunSpec) -> None:
    """This process is the run's."""
    global _here
    if not spec.gateway_url:
        return
    _here = spec
    for name, value in environment(spec.gateway_url, spec.gateway_key).items():
        if os.environ.get(name) == PLACEHOLDER:
            os.environ[name] = value
    lead_clients()


def lead_clients() -> None:
    """From now on, requests to the gateway carry the key of the run that they are made in."""
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            _lead(module)
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _lead(module: types.ModuleType) -> None:
    for name in _CLIENTS:
        client = getattr(module, name, None)
        send = getattr(client, "send", None)
        if client is not None and send is not None and not hasattr(send, _MARK):
            client.send = _leading(send)


def _leading(send: Callable[..., _R]) -> Callable[..., _R]:
    @functools.wraps(send)
    def leading(client: object, request: _Request, *args: object, **named: object) -> _R:
        _sign(request)
        return send(client, request, *args, **named)

    setattr(leading, _MARK, True)
    return leading


def _sign(request: _Request) -> None:
    run = current_run()
    spec = run.spec if run is not None else _here
    if spec is None or not spec.gateway_url:
        return
    if not str(request.url).startswith(f"{spec.gateway_url}/"):
        return
    noted = _noted.get()
    if noted is not None:
        noted.through_gateway = True
    for name in ("authorization", "x-api-key"):
        value = request.headers.get(name)
        if value is not None and PLACEHOLDER in value:
            request.headers[name] = value.replace(PLACEHOLDER, spec.gateway_key)
    if run is not None and "traceparent" not in request.headers:
        request.headers["traceparent"] = run.trace


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the libraries as everything else does, and leads their clients once they are loaded."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _LIBRARIES:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader = _Loader(found.loader)
        return found


class _Loader(importlib.abc.Loader):
    """The library's own loader, and one step after it."""

    def __init__(self, own: importlib.abc.Loader) -> None:
        self._own = own

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        self._own.exec_module(module)
        _lead(module)
