"""Whether what a user saw of one run is a whole story, told once, in order, with one ending."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.findings import DOUBLE, ENDLESS, LOSS, OPEN, ORDER, REPEAT, UNEXPLAINED, Findings

Event = dict[str, Any]
ENDINGS: Final = frozenset({"agent_completed", "agent_failed", "agent_cancelled"})
_BEFORE_BEGIN: Final = frozenset({"run_queued", "agent_started"})
# `tool_completed` repeats what its call was given.
_NUMBERED: Final = frozenset(
    {"agent_thinking", "tool_executing", "message_delta", "custom", "input_requested"}
)
_REPEAT_SAFE: Final = frozenset({"repeating"})
ATTEMPTS: Final = 3
"""How often a run that may be repeated is begun in all."""
Taken = tuple[int, int]
"""Attempt and number."""
NOTHING_TAKEN: Final[Taken] = (0, -1)
_NUMBER: Final = re.compile(r"#(\d+) ")


@dataclass(slots=True)
class Story:
    """What is known of a run."""

    run: str
    events: list[Event] = field(default_factory=list)
    """In the order in which they came, each once."""
    cancelled: bool = False
    """Whether its user has asked for its end."""
    agent: str = ""
    """Which was asked for."""
    taken: Taken = NOTHING_TAKEN
    """Highest number that the agent's last attempt was told is taken."""
    agents_killed: bool = False
    """Whether its agents' replica was killed while it lived, or out of reach for too long."""
    agents_losses: int = 0
    """How often at most they were lost while it lived: killed, told to stop, or out of reach."""
    anything_broken: bool = False
    """Whether anything was broken between its being asked for and its ending."""

    def check(self, findings: Findings) -> None:
        """Note down what breaks a promise."""
        kinds = [str(each["type"]) for each in self.events]
        endings = [each for each in self.events if each["type"] in ENDINGS]
        for each in endings:
            reason = each["data"].get("reason", "")
            findings.endings[f"{each['type']} {reason}".rstrip()] += 1
        if not endings:
            findings.breaks(ENDLESS, f"{self.run}: {_shortly(kinds)}")
        if len(endings) > 1:
            findings.breaks(DOUBLE, f"{self.run}: {[each['type'] for each in endings]}")
        if endings and kinds[-1] not in ENDINGS:
            findings.breaks(ORDER, f"{self.run} goes on after its ending: {_shortly(kinds)}")
        self._check_beginning(kinds, findings)
        self._check_calls(findings)
        self._check_numbers(endings, findings)
        if endings:
            self._check_cause(endings[0], findings)

    @property
    def began(self) -> bool:
        """Whether it was seen to begin."""
        return any(each["type"] == "agent_started" for each in self.events)

    @property
    def resumes(self) -> str:
        """The run that had ended with a question, from which this one goes on."""
        return next((each["data"].get("resumes", "") for each in self.of("agent_started")), "")

    def of(self, kind: str) -> list[Event]:
        """Its events of a type."""
        return [each for each in self.events if each["type"] == kind]

    def ended_with(self, reason: str) -> bool:
        """Whether its ending has this reason."""
        return any(
            each["type"] in ENDINGS and each["data"].get("reason") == reason for each in self.events
        )

    def attempts(self) -> list[list[Event]]:
        """Its events by attempt; what came before the first belongs to it."""
        found: list[list[Event]] = [[]]
        began = False
        for each in self.events:
            if each["type"] == "agent_started":
                if began:
                    found.append([])
                began = True
            found[-1].append(each)
        return found

    def _check_beginning(self, kinds: list[str], findings: Findings) -> None:
        if "run_queued" in kinds:
            findings.queued += 1
            if "agent_started" in kinds[: kinds.index("run_queued")]:
                findings.breaks(ORDER, f"{self.run} waits after it began: {_shortly(kinds)}")
        said = [each for each in kinds if each not in _BEFORE_BEGIN and each not in ENDINGS]
        if said and "agent_started" not in kinds[: kinds.index(said[0])]:
            findings.breaks(ORDER, f"{self.run} says {said[0]} before it began: {_shortly(kinds)}")
        begun = [each["data"].get("attempt", 1) for each in self.of("agent_started")]
        if len(begun) < 2:
            return
        findings.repeated += 1
        grows = all(one < other for one, other in itertools.pairwise(begun))
        if self.agent not in _REPEAT_SAFE or not grows:
            findings.breaks(REPEAT, f"{self.run} of {self.agent} began as attempts {begun}")
        elif not self.agents_losses:
            findings.breaks(UNEXPLAINED, f"{self.run} began as attempts {begun}")

    def _check_calls(self, findings: Findings) -> None:
        open_calls: set[str] = set()
        for each in self.events:
            if each["type"] == "agent_started":
                open_calls.clear()  # those of an attempt that was lost are closed by that
            elif each["type"] == "tool_executing":
                open_calls.add(each["data"]["call"])
            elif each["type"] == "tool_completed" and each["data"]["call"] in open_calls:
                open_calls.remove(each["data"]["call"])
            elif each["type"] == "tool_completed":
                findings.breaks(ORDER, f"{self.run}: call {each['data']['call']} was not open")
            elif each["type"] in ENDINGS and open_calls:
                lost = each["data"].get("reason") == "AGENT_LOST" and self.agents_killed
                if not lost:  # who could have closed them is gone
                    findings.breaks(OPEN, f"{self.run}: {sorted(open_calls)} at its ending")

    def _check_numbers(self, endings: list[Event], findings: Findings) -> None:
        for events in self.attempts():
            seen = self._check_dense(events, findings)
        if endings:
            last = max(
                (each["data"].get("attempt", 1) for each in self.of("agent_started")), default=1
            )
            attempt, number = self.taken
            findings.taken += number + 1
            if attempt < last:
                number = -1
            self._check_end(seen if attempt <= last else 0, number, endings[0], findings)

    def _check_dense(self, events: list[Event], findings: Findings) -> int:
        """The number that would be next."""
        numbers = [
            int(number)
            for each in events
            if each["type"] in _NUMBERED
            for number in _NUMBER.findall(json.dumps(each["data"]))
        ]
        expected = 0
        for number in numbers:
            if number > expected:
                findings.breaks(LOSS, f"{self.run}: {expected}…{number - 1} before {number}")
            elif number < expected:
                kind = REPEAT if numbers.count(number) > 1 else ORDER
                findings.breaks(kind, f"{self.run}: {number} after {expected - 1}")
            expected = max(expected, number + 1)
        return expected

    def _check_end(self, seen: int, taken: int, ending: Event, findings: Findings) -> None:
        """Nothing is missing behind the last number that was seen."""
        if ending["type"] == "agent_completed":
            said = ending["data"]["output"]["said"]
            if seen != said:
                findings.breaks(LOSS, f"{self.run} said {said}, {seen} were seen")
        elif taken >= seen:
            if self.agents_killed and ending["data"].get("reason") == "AGENT_LOST":
                findings.tails += taken + 1 - seen
            else:
                findings.breaks(LOSS, f"{self.run}: {taken} was taken, {seen} were seen, {ending}")

    def _check_cause(self, ending: Event, findings: Findings) -> None:
        reason = ending["data"].get("reason", "")
        if ending["type"] == "agent_completed":
            return
        if ending["type"] == "agent_cancelled" and self.cancelled:
            return
        losses = ATTEMPTS if self.agent in _REPEAT_SAFE else 1
        if reason == "AGENT_LOST" and (self.agents_losses >= losses or self.cancelled):
            return
        if reason == "AGENT_LOST" and not self.began and self.anything_broken:
            return
        findings.breaks(UNEXPLAINED, f"{self.run}: {ending}")


def _shortly(kinds: list[str]) -> str:
    shown = kinds if len(kinds) < 12 else [*kinds[:4], "…", *kinds[-6:]]
    return ", ".join(shown) or "nothing was seen"
