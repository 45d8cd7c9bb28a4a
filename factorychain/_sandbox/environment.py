"""The environment of a run: an allowlist and what its agent declares, and nothing left of the old one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from factorychain._sandbox import kernel
from factorychain._sandbox.confinement import InvalidConfinement

_NAMES = """
PATH LANG LANGUAGE TZ TERM PYTHONHASHSEED PYTHONUTF8 PYTHONIOENCODING PYTHONUNBUFFERED
SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE LD_LIBRARY_PATH
OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS NUMEXPR_NUM_THREADS BLIS_NUM_THREADS
VECLIB_MAXIMUM_THREADS RAYON_NUM_THREADS TOKENIZERS_PARALLELISM MALLOC_ARENA_MAX
"""
_ALWAYS = frozenset(_NAMES.split())
_CHAIN = "FACTORYCHAIN_"
_USER = "agent"


def compose_environment(
    source: Mapping[str, str], declared: Iterable[str], directory: str
) -> dict[str, str]:
    """What a run sees of the operator's environment.

    Args:
        source: the operator's.
        declared: names that the agent asks for; what is not set is left out.
        directory: the run's own folder.

    Raises:
        InvalidConfinement: a declared name is one of the chain's own settings.
    """
    asked = set(declared)
    own = sorted(name for name in asked if name.startswith(_CHAIN))
    if own:
        raise InvalidConfinement(
            f"env: {', '.join(own)} belongs to the chain; remove it from `env`"
        )
    seen = {name: value for name, value in source.items() if _allowed(name) or name in asked}
    # A lookup of a name by UDP is refused; `use-vc` makes the C library ask over TCP (port 53).
    personal = dict.fromkeys(("HOME", "TMPDIR", "TMP", "TEMP"), directory)
    names = {"USER": _USER, "LOGNAME": _USER, "RES_OPTIONS": "use-vc"}
    return seen | personal | {name: value for name, value in names.items() if name not in asked}


def _allowed(name: str) -> bool:
    return name in _ALWAYS or name.startswith("LC_")


def replace_environment(environment: Mapping[str, str]) -> None:
    """Makes this the process's environment; wipes what it was started with from its memory."""
    start, end = initial_block()
    os.environ.clear()
    kernel.clear_environment()
    if 0 < start < end:
        kernel.overwrite(start, end - start)
    os.environ.update(environment)


@cache
def initial_block() -> tuple[int, int]:
    """Where the kernel put the first environment, which /proc/self/environ goes on to show.

    Fields 50 and 51 of /proc/self/stat (proc(5)); they follow the name, which may hold blanks. A forked
    process has it at the same place.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return int(fields[47]), int(fields[48])
    except (OSError, IndexError):
        return 0, 0
