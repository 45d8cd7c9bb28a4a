"""Logs: one object a line, fields of the right task, no credential."""

from __future__ import annotations

import asyncio
import io
import json
import logging as stdlib_logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from factorychain._core import logging
from factorychain._core.tracing import span

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = stdlib_logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logging.configure("engine", level="debug", log_format="json")
    yield written
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_says_what_where_when_and_in_which_trace(stderr: io.StringIO) -> None:
    with span("work") as work:
        logging.get_logger("a.module").info("happened", run="r1", size=3)
    (line,) = lines(stderr)
    assert line["event"] == "happened"
    assert (line["service"], line["level"]) == ("engine", "info")
    assert (line["run"], line["size"]) == ("r1", 3)
    assert line["module"] == "a.module"
    assert line["trace_id"] == f"{work.context.trace_id:032x}"
    assert str(line["timestamp"]).endswith("Z")


def test_credentials_are_masked_by_name_and_by_look(stderr: io.StringIO) -> None:
    log = logging.get_logger("a")
    log.info("sent", token="opaque", Authorization="Bearer x", note=f"got {JWT} here")
    try:
        raise ValueError(f"bad token {JWT}")
    except ValueError:
        log.exception("refused")
    text = stderr.getvalue()
    assert "opaque" not in text
    assert "Bearer x" not in text
    assert JWT not in text
    assert "bad token [masked]" in text


def test_credentials_in_tracebacks_are_masked_for_people_too(
    stderr: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.configure("engine", log_format="console")
    try:
        raise ValueError(f"bad token {JWT}")
    except ValueError:
        logging.get_logger("a").exception("refused")
    assert "ValueError: bad token [masked]" in capsys.readouterr().err


def test_what_libraries_log_looks_the_same(stderr: io.StringIO) -> None:
    stdlib_logging.getLogger("library").warning("careful %s", JWT)
    stdlib_logging.getLogger("library").info("chatter")
    (line,) = lines(stderr)
    assert line["event"] == "careful [masked]"
    assert line["service"] == "engine"


def test_a_value_that_is_no_json_does_not_fail_the_line(stderr: io.StringIO) -> None:
    logging.get_logger("a").info("odd", value=object(), number=2**80, text="\ud800")
    assert lines(stderr)[0]["event"] == "odd"


async def test_fields_of_one_task_are_not_in_the_lines_of_another(stderr: io.StringIO) -> None:
    barrier = asyncio.Barrier(2)

    async def work(run: str) -> None:
        with logging.log_context(run=run):
            await barrier.wait()
            logging.get_logger("a").info(run)

    await asyncio.gather(work("r1"), work("r2"))
    logging.get_logger("a").info("outside")
    seen = {str(each["event"]): each.get("run") for each in lines(stderr)}
    assert seen == {"r1": "r1", "r2": "r2", "outside": None}
