"""What a run of chaos came to, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from tests.chaos.driver import Injected
from tests.chaos.faults import KINDS as FAULTS
from tests.chaos.findings import KINDS, Findings

_SHOWN = 5


def report(
    findings: Findings,
    injected: Sequence[Injected],
    failures: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Everything, by lines."""
    _tell_faults(injected, tell)
    tell(f"runs started {findings.started}, ended {findings.endings.total()}:")
    for ending, count in findings.endings.most_common():
        tell(f"  {count:6} {ending}")
    if findings.refusals:
        tell("starts refused: " + ", ".join(f"{n} {why}" for why, n in findings.refusals.items()))
    tell(
        f"checked: {findings.events} events as they came, {findings.read_again} read again later, "
        f"{findings.taken} acknowledged to agents"
    )
    tell(
        f"  {findings.answers} answers taken, {findings.answers_across} of them to questions that were "
        f"open while something broke; {findings.repeated} runs began again on other agents, "
        f"{findings.queued} waited behind another"
    )
    if findings.tails:
        tell(f"  {findings.tails} that were under way in a killed agents replica were not shown")
    for kind in KINDS:
        tell(f"{kind}: {len(findings.broken[kind])}")
        for words in findings.broken[kind][:_SHOWN]:
            tell(f"    {words}")
    tell(f"beside that: {len(failures)}")
    for words in failures:
        tell(f"    {words}")


def _tell_faults(injected: Sequence[Injected], tell: Callable[[str], None]) -> None:
    counted = [each for each in injected if each.counts]
    idle = len(injected) - len(counted)
    tell(f"faults {len(counted)}" + (f" (and {idle} that hit nothing)" if idle else "") + ":")
    tell(f"  {'kind':10} {'where':18} {'times':>5}   seconds to the first event, start: p50 (max)")
    for kind in FAULTS:
        for where in dict.fromkeys(each.fault.where for each in counted if each.fault.kind == kind):
            those = [
                each for each in counted if (each.fault.kind, each.fault.where) == (kind, where)
            ]
            tell(f"  {kind:10} {where:18} {len(those):5}   {_times(those)}")
    tell(f"  {'all':29} {len(counted):5}   {_times(counted)}")


def _times(those: Sequence[Injected]) -> str:
    recoveries = [each.recovery for each in those if each.recovery is not None]
    events = _spread(each.event_s for each in recoveries)
    starts = _spread(each.start_s for each in recoveries)
    return f"{events:16} {starts}"


def _spread(times: Iterable[float | None]) -> str:
    known = [each for each in times if each is not None]
    return f"{median(known):.2f} ({max(known):.2f})" if known else "-"
