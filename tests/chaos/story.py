"""Whether what a user saw of one run is a whole story, told once, in order, with one ending."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.findings import DOUBLE, ENDLESS, LOSS, OPEN, ORDER, REPEAT, UNEXPLAINED, Findings

Event = dict[str, Any]
ENDINGS: Final = frozenset({"agent_completed", "agent_failed", "agent_cancelled"})
_BEFORE_BEGIN: Final = frozenset({"run_queued", "agent_started"})
# `tool_completed` repeats what its call was given.
_NUMBERED: Final = frozenset({"agent_thinking", "tool_executing", "message_delta", "custom"})
_NUMBER: Final = re.compile(r"#(\d+) ")


@dataclass(slots=True)
class Story:
    """What is known of a run."""

    run: str
    events: list[Event] = field(default_factory=list)
    """In the order in which they came, each once."""
    cancelled: bool = False
    """Whether its user has asked for its end."""
    taken: int = -1
    """Highest number that the agent was told is taken."""
    agents_killed: bool = False
    """Whether its agents' replica was killed while it lived, or out of reach for too long."""
    agents_stopped: bool = False
    """Whether it was told to stop, or killed."""
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

    def _check_beginning(self, kinds: list[str], findings: Findings) -> None:
        said = [each for each in kinds if each not in _BEFORE_BEGIN and each not in ENDINGS]
        if kinds.count("agent_started") > 1:
            findings.breaks(REPEAT, f"{self.run} began {kinds.count('agent_started')} times")
        if said and "agent_started" not in kinds[: kinds.index(said[0])]:
            findings.breaks(ORDER, f"{self.run} says {said[0]} before it began: {_shortly(kinds)}")

    def _check_calls(self, findings: Findings) -> None:
        open_calls: set[str] = set()
        for each in self.events:
            if each["type"] == "tool_executing":
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
        numbers = [
            int(number)
            for each in self.events
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
        if endings:
            findings.taken += self.taken + 1
            self._check_end(expected, endings[0], findings)

    def _check_end(self, seen: int, ending: Event, findings: Findings) -> None:
        """Nothing is missing behind the last number that was seen."""
        if ending["type"] == "agent_completed":
            said = ending["data"]["output"]["said"]
            if seen != said:
                findings.breaks(LOSS, f"{self.run} said {said}, {seen} were seen")
        elif self.taken >= seen:
            if self.agents_killed and ending["data"].get("reason") == "AGENT_LOST":
                findings.tails += self.taken + 1 - seen
            else:
                findings.breaks(
                    LOSS, f"{self.run}: {self.taken} was taken, {seen} were seen, {ending}"
                )

    def _check_cause(self, ending: Event, findings: Findings) -> None:
        reason = ending["data"].get("reason", "")
        if ending["type"] == "agent_completed":
            return
        if ending["type"] == "agent_cancelled" and self.cancelled:
            return
        if reason == "AGENT_LOST" and (self.agents_stopped or self.cancelled):
            return
        if reason == "AGENT_LOST" and not self.began and self.anything_broken:
            return
        findings.breaks(UNEXPLAINED, f"{self.run}: {ending}")


def _shortly(kinds: list[str]) -> str:
    shown = kinds if len(kinds) < 12 else [*kinds[:4], "…", *kinds[-6:]]
    return ", ".join(shown) or "nothing was seen"
