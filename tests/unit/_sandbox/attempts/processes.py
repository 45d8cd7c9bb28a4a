"""Starting processes, and reaching those that are there. Each attempt does one thing, and returns what a test looks at or lets its error out."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading


def fork() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_program() -> str:
    return subprocess.run(["/bin/echo", "ran"], capture_output=True, text=True, check=True).stdout


def start_in_own_session() -> None:
    subprocess.run(["/bin/true"], start_new_session=True, check=True)


def run_python(text: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-I", "-c", text], capture_output=True, text=True, check=False
    )
    return ended.stdout + ended.stderr


def replace_program() -> None:
    os.execv("/bin/true", ["true"])


def call(name: str, *arguments: int) -> int:
    """A function of the C library that is little more than the system call."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = getattr(libc, name)(*[ctypes.c_long(each) for each in arguments])
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call_number(number: int, *arguments: int) -> int:
    return call("syscall", number, *arguments)


def leave_session() -> None:
    os.setsid()


def kill(pid: int) -> None:
    os.kill(pid, 0)


def kill_by_descriptor(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT)


def signal_itself() -> str:
    heard = []
    signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    return str(len(heard))


def own_signals_by_descriptor() -> None:
    """A signal sent by the kernel on somebody's behalf asks nobody for permission later."""
    reading, _ = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, 1)


def type_into_terminal() -> None:
    reading, _ = os.pipe()
    fcntl.ioctl(reading, 0x5412, b"x")  # TIOCSTI


def limit_other(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))


def renice(pid: int) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, 19)


def renice_all() -> None:
    os.setpriority(os.PRIO_USER, 0, 19)


def pin_other(pid: int) -> None:
    os.sched_setaffinity(pid, {0})
