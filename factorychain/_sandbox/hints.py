"""Says of an error inside a confined run which attribute of the agent would allow what was refused.

The kernel only answers with a number; the hint goes beside the error in the log, for the agent's author.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from types import TracebackType

from factorychain._causes import causes

_FILES = (
    "an agent reads only the interpreter, its libraries and what `read_paths` names, and writes only in "
    "its own folder (the working directory, also TMPDIR and HOME). Add the path to `read_paths` to read "
    "it; to keep something, return it as output"
)
_PORTS = (
    "an agent connects over TCP only to the ports that `network_ports` names, and cannot listen. Add the "
    "port to `network_ports`"
)
_LOOKUP = (
    "an agent looks host names up over TCP: add 53 to `network_ports`, beside the port that it connects "
    "to, or use an address"
)
_SOCKETS = (
    "an agent has TCP sockets only (`network_ports`): no datagram, raw or Unix socket, and no attribute "
    "allows one"
)
_STARTING = (
    "an agent starts no other process unless it sets `processes = True`, and no process leaves its "
    "group or session"
)
_OTHERWISE = (
    "the system call is one that agents are refused: new processes (`processes = True` allows them), "
    "groups and sessions, signals and limits of other processes, sockets other than TCP, and what changes the machine"
)
_MEMORY = "the agent reached its memory limit; raise `memory_bytes`, within the operator's maximum"
_ENVIRONMENT = "an agent sees only the environment variables that `env` names; add it to `env`"
_MODULE = (
    "an agent imports what was there when the agents service started: packages (with `__init__.py`) and "
    "modules. Import it at the top of the agent's module, or add its folder to `read_paths`"
)
_OPEN_FILES = "the run has as many open files as the operator allows; close some"
_FILE_SIZE = "the file reached the size that the operator allows for one file of a run"
_REACHED = (
    "the agent's confinement let the connection pass, and the other side refused it: look whether "
    "something listens there"
)
_STARTERS = ("subprocess", "multiprocessing", "pty", "asyncio.base_subprocess", "os")
_BY_NUMBER = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _OPEN_FILES,
    errno.EFBIG: _FILE_SIZE,
    errno.ECONNREFUSED: _REACHED,
}


def hint(error: BaseException) -> str:
    """What would allow what the error was raised for; empty if confinement has nothing to do with it.

    Looks at what the error was raised from too, and into groups: a library wraps what it met.
    """
    for each in causes(error):
        found = _of(each)
        if found:
            return found
    return ""


def _of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _MEMORY
    if isinstance(error, socket.gaierror):
        return _LOOKUP
    if isinstance(error, PermissionError):
        return _of_refusal(error)
    if isinstance(error, OSError):
        return _BY_NUMBER.get(error.errno or 0, "")
    if isinstance(error, ModuleNotFoundError):
        return _MODULE
    if isinstance(error, KeyError):
        return _of_key(error)
    # By its name, so that nothing is imported for it: sqlite3 says no number.
    is_sqlite = type(error).__module__ == "sqlite3"
    return _FILES if is_sqlite and "unable to open database" in str(error) else ""


def _of_refusal(error: PermissionError) -> str:
    """Files and connections are refused with EACCES, system calls with EPERM."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {_FILES}" if _is_path(error) else _FILES
    if error.errno == errno.EACCES:
        return _PORTS
    modules = [module for module, _ in _frames(error.__traceback__)]
    innermost = modules[-1] if modules else ""
    if innermost == "socket" or "asyncio.base_events" in modules[-1:]:
        return _SOCKETS
    if innermost.split(".")[0] in _STARTERS or innermost in _STARTERS:
        return _STARTING
    return _OTHERWISE


def _is_path(error: PermissionError) -> bool:
    return isinstance(error.filename, str | bytes)


def _of_key(error: KeyError) -> str:
    """If it was an environment variable that was missing: `os.environ` raises it."""
    frames = list(_frames(error.__traceback__))
    return _ENVIRONMENT if frames and frames[-1] == ("os", "__getitem__") else ""


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, str]]:
    """Module and function, from the outermost to where it was raised."""
    while traceback is not None:
        frame = traceback.tb_frame
        yield str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        traceback = traceback.tb_next
