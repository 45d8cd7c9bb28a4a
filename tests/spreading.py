"""Runs tests over several processes that are forked when everything has been collected.

A plugin of `make test`; pytest by itself runs one test after the other. Collecting takes as long as some
hundred tests, which each process would do by itself if it were not forked. The parent has one thread and
has run no test when it forks.

What is marked `alone` goes first, one after the other. Then every process takes one file after the other,
or all files of a folder that share a chain (`one_…`), in the order of their paths. What it reports goes to
the parent's hooks as if it had run there; one that dies fails its test, and another takes its place.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final, NoReturn

import pytest
from _pytest._io import TerminalWriter

_SHARED: Final = re.compile(r"/one_\w+/")
# Of the parent alone: they print, or write down what all processes have found.
_OF_PARENT: Final = ("terminalreporter", "lfplugin", "nfplugin", "stepwiseplugin")
_numbers: Final = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--spread", type=int, default=1, help="processes that run tests")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if session.testsfailed or session.config.option.collectonly:
        return None
    alone = [each for each in session.items if each.get_closest_marker("alone")]
    others = [each for each in session.items if not each.get_closest_marker("alone")]
    _Spread(session, alone, 1).run()
    _Spread(session, others, session.config.getoption("spread")).run()
    return True


def _groups(items: Sequence[pytest.Item]) -> deque[list[pytest.Item]]:
    """What has to run in one process, in the order of its first item."""
    found: dict[str, list[pytest.Item]] = {}
    for each in items:
        file = each.nodeid.partition("::")[0]
        shared = _SHARED.search(file)
        found.setdefault(file[: shared.end()] if shared else file, []).append(each)
    return deque(found.values())


class _Worker:
    """A process, as its parent sees it."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid = pid
        self.connection = connection
        self.left: deque[pytest.Item] = deque()
        """What it was given and has not finished."""


class _Spread:
    """Items over so many processes."""

    def __init__(self, session: pytest.Session, items: Sequence[pytest.Item], count: int) -> None:
        self._session = session
        self._groups = _groups(items)
        self._count = min(count, len(self._groups))
        self._workers: dict[Connection, _Worker] = {}

    def run(self) -> None:
        if self._session.shouldfail or self._session.shouldstop:
            return
        for _ in range(self._count):
            self._start()
        try:
            while self._workers:
                for each in wait(list(self._workers)):
                    self._hear(self._workers[each])  # type: ignore[index]
        except KeyboardInterrupt:  # which they got as well
            for worker in self._workers.values():
                os.waitpid(worker.pid, 0)
            raise
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _start(self) -> None:
        config = self._session.config
        number = next(_numbers)
        ours, theirs = Pipe()
        _flush(config)
        pid = os.fork()
        if pid == 0:
            for each in (ours, *self._workers):
                each.close()
            _Run(self._session, f"w{number}", theirs).and_exit()
        theirs.close()
        self._workers[ours] = _Worker(pid, ours)

    def _hear(self, worker: _Worker) -> None:
        message = _received(worker.connection)
        if message is None:
            self._ended(worker)
            return
        what, *told = message
        hook = self._session.config.hook
        match what:
            case "next":
                worker.connection.send([each.nodeid for each in self._give(worker)])
            case "start":
                hook.pytest_runtest_logstart(nodeid=told[0], location=told[1])
            case "report":
                config = self._session.config
                report = hook.pytest_report_from_serializable(config=config, data=told[0])
                hook.pytest_runtest_logreport(report=report)
            case "broke":
                self._session.shouldfail = f"a process of tests ended with\n{told[0]}"
            case "finish":
                worker.left.popleft()
                hook.pytest_runtest_logfinish(nodeid=told[0], location=told[1])

    def _give(self, worker: _Worker) -> list[pytest.Item]:
        if self._session.shouldfail or self._session.shouldstop or not self._groups:
            return []
        group = self._groups.popleft()
        worker.left.extend(group)
        return group

    def _ended(self, worker: _Worker) -> None:
        del self._workers[worker.connection]
        worker.connection.close()
        _, status = os.waitpid(worker.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        if self._session.shouldfail:
            return
        if not worker.left:
            self._session.shouldfail = f"a process of tests ended with {how}"
            return
        item = worker.left.popleft()
        text = f"the process ended with {how} while it ran this test"
        report = pytest.TestReport(
            item.nodeid, item.location, dict[str, Any](), "failed", text, "call"
        )
        self._session.config.hook.pytest_runtest_logreport(report=report)
        if worker.left:
            self._groups.appendleft(list(worker.left))
        self._start()


def _received(connection: Connection) -> tuple[Any, ...] | None:
    """What a process says next; None when it has ended."""
    try:
        message: tuple[Any, ...] = connection.recv()
    except EOFError:
        return None
    return message


def _flush(config: pytest.Config) -> None:
    """Nothing may be written once by each process."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None and capture.is_globally_capturing():
        capture.read_global_capture()
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]


class _Silent:
    """In place of what prints: a test that took too long says where it was as if it had printed it."""

    def __init__(self) -> None:
        self._tw = TerminalWriter(sys.__stderr__)


class _Run:
    """What a process does."""

    def __init__(self, session: pytest.Session, name: str, connection: Connection) -> None:
        self._session = session
        self._name = name
        self._connection = connection
        self._items = {each.nodeid: each for each in session.items}

    def _become(self) -> None:
        """A process of its own: with its own output, folder and chance, and nothing to print."""
        config = self._session.config
        plugins = config.pluginmanager
        for each in _OF_PARENT:
            if plugins.hasplugin(each):
                plugins.unregister(name=each)
        plugins.register(_Silent(), "terminalreporter")
        plugins.register(self, "spreading-run")
        capture = plugins.getplugin("capturemanager")
        if capture is not None and capture.is_globally_capturing():
            # The files are its parent's, and the places in them.
            capture.stop_global_capturing()
            capture.start_global_capturing()
        factory = config._tmp_path_factory  # type: ignore[attr-defined]
        factory._basetemp = factory.getbasetemp() / self._name
        factory._basetemp.mkdir()
        random.seed()

    def and_exit(self) -> NoReturn:
        status = 1
        try:
            self._become()
            self._run()
            status = 0
        except (KeyboardInterrupt, EOFError, BrokenPipeError):  # or the parent is gone
            self._session._setupstate.teardown_exact(None)
        except BaseException:
            self._connection.send(("broke", traceback.format_exc()))
        finally:
            os._exit(status)

    def _run(self) -> None:
        items = self._given()
        item = next(items, None)
        while item is not None:
            upcoming = next(items, None)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=upcoming)
            if self._session.shouldfail or self._session.shouldstop:
                break
            item = upcoming
        self._session.config.hook.pytest_sessionfinish(session=self._session, exitstatus=0)
        self._session.config._ensure_unconfigure()

    def _given(self) -> Iterator[pytest.Item]:
        while True:
            self._connection.send(("next",))
            names = self._connection.recv()
            if not names:
                return
            yield from (self._items[each] for each in names)

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._connection.send(("start", nodeid, location))

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._connection.send(("finish", nodeid, location))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self._session.config
        data = config.hook.pytest_report_to_serializable(config=config, report=report)
        self._connection.send(("report", data))
