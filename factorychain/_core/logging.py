"""Structured logs on stderr, one object a line.

Invariant: no line carries a credential. Fields that are named like one are masked, and whatever
looks like a signed token is masked wherever it stands. Run, thread and tenant come from
`log_context`, which lives in contextvars and so belongs to the task that set it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import orjson

from factorychain._core.optional import without
from factorychain._core.tracing import current_trace_id

with without("rich"):  # for tracebacks that show variables, which may be anybody's
    import structlog
    from structlog.typing import FilteringBoundLogger, Processor

LogFormat = Literal["auto", "json", "console"]
_Line = MutableMapping[str, Any]

_MASK = "[masked]"
_SECRET_NAMES = frozenset(
    {"token", "authorization", "password", "secret", "txn-token", "txn_token", "cookie", "api_key"}
)
# Three base64url parts of which the first begins a JSON object: a JWT.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*")


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module. Cheap; configured or not when it is made."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


def log_context(**ids: str | int) -> AbstractContextManager[None]:
    """Adds fields (run, thread, tenant) to every line logged inside, in this task only."""
    return cast("AbstractContextManager[None]", structlog.contextvars.bound_contextvars(**ids))


def configure(service: str, *, level: str = "info", log_format: LogFormat = "auto") -> None:
    """Sends our logs and those of the libraries, in one format, to stderr."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared = _shared_processors(service)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *_rendering(console)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _route_standard_library(shared, console, number)


def _route_standard_library(shared: list[Processor], console: bool, level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(console),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log every request at info; what is wrong with them comes at warning.
    root.setLevel(max(level, logging.WARNING))


def _shared_processors(service: str) -> list[Processor]:
    def add_service(_logger: object, _method: str, line: _Line) -> _Line:
        line["service"] = service
        return line

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_service,
        add_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(console: bool) -> list[Processor]:
    # Masking stands after the exception was rendered: a traceback's text may quote a token.
    as_text: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    return [structlog.processors.format_exc_info, mask_secrets, as_text]


def add_trace(_logger: object, _method: str, line: _Line) -> _Line:
    """Adds the id of the trace that the line belongs to, if there is one."""
    trace_id = current_trace_id()
    if trace_id:
        line["trace_id"] = trace_id
    return line


def mask_secrets(_logger: object, _method: str, line: _Line) -> _Line:
    """Masks fields named like a credential, and anything that looks like a signed token."""
    for key, value in line.items():
        if key.lower() in _SECRET_NAMES:
            line[key] = _MASK
        elif isinstance(value, str) and "eyJ" in value:
            line[key] = _JWT.sub(_MASK, value)
    return line


def _to_json(line: _Line, **_options: object) -> str:
    # `repr` for whatever is no JSON: a log line must never fail.
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a huge integer, a lone surrogate
        return json.dumps(line, default=repr)
