"""What every run may read: the interpreter, its libraries, the modules that the agents are made of.

Invariant: of a folder that Python imports from (a project's root, say) only what can be imported is
readable: packages and modules. Its other content (`.env`, a data directory, documents) is not; an agent
declares what it needs of that in `read_paths`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from factorychain._sandbox.confinement import is_within

_SYSTEM = """
/lib /lib32 /lib64 /usr/lib /usr/lib32 /usr/lib64 /usr/local/lib /usr/local/lib64
/usr/share/zoneinfo /usr/share/ca-certificates /usr/local/share/ca-certificates
/etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/ld.so.preload
/etc/resolv.conf /etc/hosts /etc/nsswitch.conf /etc/host.conf /etc/gai.conf
/etc/services /etc/protocols /etc/localtime /etc/timezone /etc/mime.types
/etc/ssl/certs /etc/ssl/openssl.cnf /etc/ssl/cert.pem /etc/ca-certificates
/etc/pki/tls/certs /etc/pki/tls/cert.pem /etc/pki/tls/openssl.cnf /etc/pki/ca-trust/extracted
/dev/zero /dev/full /dev/random /dev/urandom
/sys/devices/system/cpu /sys/devices/system/node
"""
PROGRAMS = ("/bin", "/usr/bin", "/usr/local/bin")
"""For runs that may start processes."""
PROC = "/proc"
OWN_PROC = (
    "/proc/self", "/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg",
)  # fmt: skip
"""Of /proc what tells of this process and of the machine, not of other processes."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_MODULE_ENDINGS = (".py", ".pyc", ".so", ".zip", ".egg")
_METADATA_ENDINGS = (".dist-info", ".egg-info")


@cache
def library_paths() -> tuple[str, ...]:
    """Real paths, none within another, looked up once.

    Packages without an `__init__.py` are known by the modules that are loaded from them.
    """
    interpreter = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    certificates = [os.environ[name] for name in _CERTIFICATES if os.environ.get(name)]
    whole = [*_SYSTEM.split(), *interpreter, os.path.realpath(sys.executable), *certificates]
    covered = without_nested(os.path.realpath(each) for each in whole)
    importable = [path for root in _import_roots(covered) for path in _importable(root)]
    return without_nested([*covered, *importable])


@cache
def listed_roots() -> tuple[str, ...]:
    """Folders that the importer lists, so only their names may be read."""
    return tuple(str(each) for each in _import_roots(library_paths()) if each.is_dir())


def list_once(roots: Iterable[str]) -> None:
    """Lets the importer list folders. It keeps what it found while they stay as they are."""
    PathFinder.find_spec("factorychain_module_that_is_nowhere", list(roots))


def without_nested(paths: Iterable[str]) -> tuple[str, ...]:
    """Those that exist and lie in no other of them."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda each: each.split("/")):
        inside = kept and is_within(path, kept[-1])
        if not inside and os.path.lexists(path):
            kept.append(path)
    return tuple(kept)


def _import_roots(covered: Iterable[str]) -> list[Path]:
    """Entries of the import path that are not readable as a whole already."""
    roots = dict.fromkeys(Path(each).resolve() for each in sys.path)
    return [each for each in roots if not any(each.is_relative_to(one) for one in covered)]


def _importable(root: Path) -> list[str]:
    """Packages, modules and their metadata in a folder; the file itself, if it is an archive."""
    if not root.is_dir():
        return [str(root)]
    loaded = _loaded_from(root)
    try:
        with os.scandir(root) as entries:
            return [each.path for each in entries if _is_importable(each, loaded)]
    except OSError:
        return []


def _is_importable(entry: os.DirEntry[str], loaded: set[str]) -> bool:
    if entry.name.startswith("."):
        return False
    if not entry.is_dir():
        return entry.name.endswith(_MODULE_ENDINGS)
    package = Path(entry.path, "__init__.py").exists() or entry.name in loaded
    return package or entry.name.endswith(_METADATA_ENDINGS)


def _loaded_from(root: Path) -> set[str]:
    """First parts, below the folder, of the paths of modules that are loaded."""
    paths = [getattr(each, "__file__", None) for each in list(sys.modules.values())]
    real = [Path(each).resolve() for each in paths if isinstance(each, str)]
    return {each.relative_to(root).parts[0] for each in real if each.is_relative_to(root)}
