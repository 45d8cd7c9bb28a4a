"""What can be asked for on the command line of `python -m tests.chaos`."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import KINDS, all_faults
from tests.chaos.forms import FORMS, Form

_EPILOG = """\
Exit status: 0 if nothing was lost, repeated, out of order or leaked, every admitted run had exactly one
ending, and users were served again after every fault; 1 if not, or if a fault that was named cannot be
done on this machine (of the faults that are done by default such a one is left out, and the last lines say
so); 2 if the chain did not start, or a part of it was not started again; 3 if anything hung, here or
there: what does is printed.
A seed decides the faults, their order and length, and what users do; the machine decides the rest.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """As they were given."""

    seconds: float
    """For all forms together."""
    forms: tuple[Form, ...]
    users: int
    seed: str
    kinds: tuple[str, ...]
    kinds_named: bool
    """Whether they were asked for, and not all of them by default."""
    parts: tuple[str, ...]
    """Empty: all."""
    shortest_s: float
    longest_s: float
    steps: int
    pause_ms: int
    rest_s: float
    disk_mib: int
    log_level: str
    keep: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Ends with a usage message if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Breaks a running chain while users talk with agents, and checks what they saw.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=600, help="how long to break things (600)")
    add("--form", choices=(*FORMS, "both"), default="both", help="half of the time each (both)")
    add("--users", type=int, default=50, help="users; every second talks in two threads (50)")
    add("--seed", default=str(time.time_ns() % 1_000_000), help="repeats the choice of faults")
    add("--faults", help=f"kinds, comma-separated ({','.join(KINDS)})")
    add(
        "--parts",
        default="",
        help="processes, links and whole layers, comma-separated: "
        + "; ".join(f"{each.name}: {', '.join(each.parts)}" for each in FORMS.values())
        + " (all)",
    )
    add("--shortest", type=float, default=0.5, help="seconds that a cut or a stop lasts (0.5)")
    add("--longest", type=float, default=6, help="seconds that a cut or a stop lasts at most (6)")
    add("--steps", type=int, default=10, help="steps of a run, each of four events or five (10)")
    add("--pause-ms", type=int, default=300, help="pause between steps (300)")
    add("--rest", type=float, default=2, help="seconds between two runs, at most (2)")
    add("--disk-mib", type=int, default=512, help="size of the disk that is filled (512)")
    add("--log-level", choices=("debug", "info"), default="info", help="of the services (info)")
    add("--keep", type=Path, help="a new folder for logs and journals, which is kept")
    given = parser.parse_args(arguments)
    forms = tuple(each for each in FORMS.values() if given.form in (each.name, "both"))
    kinds = tuple(given.faults.split(",")) if given.faults else KINDS
    parts = tuple(filter(None, given.parts.split(",")))
    for each in kinds:
        if each not in KINDS:
            parser.error(f"no such fault: {each}; there are {', '.join(KINDS)}")
    for each in parts:
        if not any(all_faults(form, KINDS, (each,)) for form in forms):
            known = ", ".join(part for form in forms for part in form.parts)
            parser.error(f"no such part: {each}; there are {known}")
    forms = tuple(each for each in forms if all_faults(each, kinds, parts))
    if not forms:
        parser.error(f"none of the faults {','.join(kinds)} is done to any of {given.parts}")
    if given.users < 1 or given.seconds <= 0 or given.rest < 0:
        parser.error("--users must be at least 1, --seconds above 0, --rest 0 or more")
    if not 0 < given.shortest <= given.longest:
        parser.error("--shortest must be above 0 and at most --longest")
    if given.keep is not None and given.keep.exists():
        parser.error(f"{given.keep} is there already")
    return Options(
        given.seconds, forms, given.users, given.seed, kinds, given.faults is not None, parts, given.shortest, given.longest,
        given.steps, given.pause_ms, given.rest, given.disk_mib, given.log_level, given.keep,
    )  # fmt: skip
