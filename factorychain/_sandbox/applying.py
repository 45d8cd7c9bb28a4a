"""The order in which a process is confined. Invariant: either all of it holds, or the caller is told.

A step that fails leaves the process half confined, so it must end without running an agent.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from factorychain._sandbox import descriptors, environment, landlock, limits, privileges, seccomp
from factorychain._sandbox.confinement import (
    Applied,
    CannotConfine,
    Confinement,
    Feature,
    is_within,
)
from factorychain._sandbox.landlock import Access
from factorychain._sandbox.libraries import (
    OWN_PROC,
    PROC,
    PROGRAMS,
    library_paths,
    list_once,
    listed_roots,
)
from factorychain._sandbox.support import Support, probe

_pins: list[int] = []
"""/proc makes a new inode for a name that it has forgotten, and a rule is for an inode: so these hold
the names that rules are for."""


def prepare() -> None:
    """Looks up once what is the same for every run, so that confining takes half as long.

    Call it in the parent of many processes, after the agents' modules are imported.
    """
    library_paths()
    list_once(listed_roots())
    environment.initial_block()
    if probe().seccomp:
        for connects in (False, True):
            _filter(processes=False, connects=connects)


def confine(confinement: Confinement) -> Applied:
    """Confines the calling process, its later threads and its children, for good.

    Raises:
        CannotConfine: the kernel lacks what is required (then nothing has happened yet), the process
            has another thread, or a step failed.
    """
    _check_threads()
    support = probe()
    _check_required(confinement, support)
    _check_private(confinement)
    with _step("environment"):
        environment.replace_environment(confinement.environment)
        _enter(confinement.directory)
    with _step("descriptors"):
        descriptors.close_all_but(confinement.keep_descriptors)
    with _step("limits"):
        limits.lower_weight(confinement.processes_nice)
        limits.apply_limits(confinement)
    with _step("privileges"):
        privileges.drop_capabilities()
        privileges.hide()
        privileges.gain_none()
    _rules(confinement, support)
    return Applied(support.landlock_abi, support.missing)


def _check_required(confinement: Confinement, support: Support) -> None:
    for feature in support.missing:
        if feature in confinement.require:
            raise CannotConfine(feature, "this kernel has none, and it is required")


def _check_private(confinement: Confinement) -> None:
    for private in map(os.path.realpath, confinement.private_paths):
        for path in library_paths():
            if is_within(private, path):
                raise CannotConfine("private_paths", f"{private} lies in {path}, which agents read")


def _check_threads() -> None:
    """Landlock and capabilities are a thread's own: another thread would stay free.

    The kernel's count: native pools do not show in `threading`.
    """
    with contextlib.suppress(FileNotFoundError):
        with os.scandir("/proc/self/task") as tasks:
            count = sum(1 for _ in tasks)
        if count != 1:
            why = f"the process has {count} threads; confine it before anything starts one"
            raise CannotConfine("threads", why)


def _enter(directory: str) -> None:
    os.chdir(directory)
    if "tempfile" in sys.modules:  # it remembers the folder that the parent had
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]  # ModuleType names none


def _rules(confinement: Confinement, support: Support) -> None:
    if support.landlock_abi:
        with _step(Feature.LANDLOCK):
            list_once(_unlisted(confinement))
            _pin(confinement)
            paths, ports = _paths(confinement), confinement.connect_ports
            landlock.restrict(paths, ports, support.landlock_abi)
    if support.seccomp:
        with _step(Feature.SECCOMP):
            connects = bool(confinement.connect_ports)
            seccomp.install(_filter(processes=confinement.processes, connects=connects))


def _filter(*, processes: bool, connects: bool) -> bytes:
    ruled = Feature.LANDLOCK_TRUNCATE not in probe().missing
    return seccomp.filter_for(processes=processes, connects=connects, truncate_ruled=ruled)


def _paths(confinement: Confinement) -> Iterator[tuple[str, Access]]:
    hidden = _unlisted(confinement)
    readable = landlock.READ_EXECUTE if confinement.processes else landlock.READ
    yield from ((each, readable) for each in library_paths())
    yield from ((each, Access.READ_DIR) for each in listed_roots() if each not in hidden)
    yield from ((each, readable) for each in confinement.read_paths)
    if confinement.processes:
        yield from ((each, readable) for each in PROGRAMS)
        yield PROC, landlock.READ  # a child reads of itself what lies there under its own number
    yield from ((each, landlock.READ) for each in OWN_PROC)
    yield os.devnull, landlock.READ_WRITE
    yield confinement.directory, landlock.OWN


def _unlisted(confinement: Confinement) -> list[str]:
    """Import roots that must not be listed: the right goes for all below, and something private is there.
    The importer knows of them what it has listed before.
    """
    private = [os.path.realpath(each) for each in confinement.private_paths]
    return [each for each in listed_roots() if any(is_within(one, each) for one in private)]


def _pin(confinement: Confinement) -> None:
    for path in () if confinement.processes else OWN_PROC:
        with contextlib.suppress(OSError):
            _pins.append(os.open(path, os.O_PATH | os.O_CLOEXEC))


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotConfine(name, str(error)) from error
