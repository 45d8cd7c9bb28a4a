"""Judges a run of chaos by what agents were told is taken and by what clients saw, and by nothing else.

Independent of the product: neither it nor what it imports imports any of that. It reads two kinds of files
after everything is over: the journals of clients (`journal.py`), and the terminal of the chain, where agents
print what was taken from them. What was broken and when only says whether an ending has a cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.chaos.dialogue import Answered, check_dialogue
from tests.chaos.findings import ANSWER, DOUBLE, LEAK, LOSS, REPEAT, RESET, Findings
from tests.chaos.forms import layer_of
from tests.chaos.journal import entries
from tests.chaos.story import ATTEMPTS, ENDINGS, NOTHING_TAKEN, Event, Story, Taken

_CANARY: Final = re.compile(r"canary-([A-Za-z0-9]+)-")
_TAKEN: Final = re.compile(r"taken (canary-[A-Za-z0-9-]+)@(\d+)#(\d+)")
_LOST_AFTER_S: Final = 28.0
"""Agents that nobody reaches for 30 s are lost; the engine does not look at every moment."""
_AROUND_S: Final = 2.0
"""A run may have been accepted a little before or after its user heard of it."""
_NEVER: Final = frozenset({"REQUEST_ANSWERED", "INVALID_FIELD", "RUN_NOT_FOUND"})
"""What no answer may be refused with that is the only one to a question that was seen."""


@dataclass(frozen=True, slots=True)
class Break:
    """Something that was done to the chain."""

    kind: str
    where: str
    began: float
    """Unix time."""
    ended: float

    @property
    def takes_agents(self) -> bool:
        """Whether runs are lost with their agents: killed, or out of reach for too long."""
        where = layer_of(self.where)
        if (where, self.kind) == ("agents", "kill"):
            return True
        away = where == "engine→agents" or (where, self.kind) == ("agents", "freeze")
        return away and self.long

    @property
    def stops_agents(self) -> bool:
        """Whether agents that could not finish in time are lost with it."""
        return self.takes_agents or (layer_of(self.where), self.kind) == ("agents", "restart")

    @property
    def long(self) -> bool:
        """Whether what cannot be reached meanwhile is lost."""
        return self.ended - self.began >= _LOST_AFTER_S

    def touches(self, began: float, ended: float) -> bool:
        """Whether it was while something lived."""
        return self.began <= ended + _AROUND_S and self.ended >= began - _AROUND_S


def check(journals: Iterable[Path], terminals: Iterable[Path], breaks: Sequence[Break]) -> Findings:
    """Everything."""
    findings = Findings()
    taken = taken_from_agents(terminals)
    for path in journals:
        _Client(path.stem.removeprefix("seen-"), findings, breaks).check(path, taken)
    return findings


def taken_from_agents(terminals: Iterable[Path]) -> dict[str, Taken]:
    """The last attempt that had anything taken, and its highest number, by canary."""
    highest: dict[str, Taken] = {}
    for terminal in terminals:
        with terminal.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                for canary, attempt, number in _TAKEN.findall(line):
                    taken = (int(attempt), int(number))
                    highest[canary] = max(highest.get(canary, NOTHING_TAKEN), taken)
    return highest


@dataclass(slots=True)
class _Thread:
    """What one reader has of one thread."""

    events: dict[int, Event] = field(default_factory=dict)
    last: int = 0
    epoch: int = 0


@dataclass(slots=True)
class _Run:
    request: str
    thread: str
    agent: str
    asked: float
    ended: float = 0.0
    cancelled: bool = False


class _Client:
    """One client's journal."""

    def __init__(self, name: str, findings: Findings, breaks: Sequence[Break]) -> None:
        self._name = name
        self._findings = findings
        self._breaks = breaks
        self._threads: dict[tuple[str, str], _Thread] = {}
        """By reader and thread."""
        self._asked: dict[str, tuple[float, str]] = {}
        """When a start was first sent, and for which agent, by request."""
        self._runs: dict[str, _Run] = {}
        self._open: dict[str, float] = {}
        """Since when a run has waited for an answer."""
        self._answered: dict[str, Answered] = {}
        """By the run that has asked."""
        self._resumed: dict[str, list[str]] = {}
        """Which runs go on from one that has ended with a question."""

    def check(self, path: Path, taken: dict[str, Taken]) -> None:
        for entry in entries(path):
            self._read(entry)
        self._compare_readers()
        stories = self._stories()
        for run, each in self._runs.items():
            story = stories.pop(run, None) or Story(run)
            story.agent, story.cancelled = each.agent, each.cancelled
            story.taken = taken.get(f"canary-{self._name}-{each.request}", NOTHING_TAKEN)
            _tell_breaks(story, each, self._breaks)
            self._check_story(story)
        for story in stories.values():  # their start was never answered, and they were seen
            story.agent = next((each["data"]["agent"] for each in story.of("agent_started")), "")
            story.anything_broken = story.agents_killed = True
            story.agents_losses = ATTEMPTS
            self._check_story(story)
        for number, runs in self._resumed.items():
            if len(runs) > 1:
                self._findings.breaks(DOUBLE, f"{number} goes on in {runs}")

    def _check_story(self, story: Story) -> None:
        story.check(self._findings)
        check_dialogue(story, self._answered, self._findings)
        if story.resumes:
            self._resumed.setdefault(story.resumes, []).append(story.run)

    def _read(self, entry: dict[str, Any]) -> None:
        what = entry["what"]
        if what == "asked":
            self._asked.setdefault(entry["request"], (entry["at"], entry["agent"]))
        elif what == "admitted":
            asked, agent = self._asked[entry["request"]]
            if entry["run"] not in self._runs:
                self._findings.started += 1
                self._runs[entry["run"]] = _Run(entry["request"], entry["thread"], agent, asked)
        elif what == "refused":
            self._findings.refusals[entry["error"]["reason"]] += 1
        elif what == "cancel":
            self._runs[entry["run"]].cancelled = True
        elif what in ("answering", "answered", "unanswered"):
            self._read_answer(what, entry)
        elif what == "joined":
            self._threads.setdefault((entry["reader"], entry["thread"]), _Thread())
        elif what == "frame":
            self._read_frame(entry["reader"], entry["frame"])

    def _read_answer(self, what: str, entry: dict[str, Any]) -> None:
        answered = self._answered.setdefault(entry["run"], Answered())
        if what == "answering":
            answered.given[entry["question"]] = entry["value"]
        elif what == "answered":
            if entry["question"] not in answered.taken:
                since = self._open.get(entry["run"], entry["at"])
                across = any(since < each.began < entry["at"] for each in self._breaks)
                self._findings.answers += 1
                self._findings.answers_across += across
            answered.taken.add(entry["question"])
            answered.following.add(entry["next"])
        elif entry["error"]["reason"] in _NEVER:
            self._findings.breaks(ANSWER, f"{entry['run']}: {entry['error']}")

    def _read_frame(self, reader: str, frame: Event) -> None:
        others = {each for each in _CANARY.findall(json.dumps(frame)) if each != self._name}
        if others:
            self._findings.breaks(LEAK, f"{self._name} saw {sorted(others)}: {frame}")
        if frame["op"] == "reset":
            self._findings.breaks(RESET, f"{self._name}, {reader}: {frame}")
            self._threads[reader, frame["thread"]] = _Thread()
        elif frame["op"] == "events":
            thread = self._threads.get((reader, frame["thread"]))
            if thread is None:
                self._findings.breaks(LEAK, f"{self._name} follows no {frame['thread']}: {frame}")
                return
            for event in frame["events"]:
                self._read_event(reader, frame, thread, event)

    def _read_event(self, reader: str, frame: Event, thread: _Thread, event: Event) -> None:
        live, seq = reader == "live", event["seq"]
        if live:
            self._findings.events += 1
        else:
            self._findings.read_again += 1
        where = f"{self._name}, {reader}, {frame['thread']}"
        if thread.epoch not in (0, frame["epoch"]):
            self._findings.breaks(RESET, f"{where}: epoch {frame['epoch']} after {thread.epoch}")
        thread.epoch = frame["epoch"]
        if seq > thread.last + 1:
            self._findings.breaks(LOSS, f"{where}: {seq} after {thread.last}: {event}")
        elif seq <= thread.last:
            self._findings.breaks(REPEAT, f"{where}: {seq} after {thread.last}: {event}")
        thread.last = max(thread.last, seq)
        thread.events.setdefault(seq, event)
        if live and (event["type"] in ENDINGS or event["type"] == "input_requested"):
            at = datetime.fromisoformat(event["at"]).timestamp()
            self._open.setdefault(event["run"], at)
            if event["type"] in ENDINGS and event["run"] in self._runs:
                self._runs[event["run"]].ended = at

    def _compare_readers(self) -> None:
        """Who joins late sees what was seen live, all of it and nothing else."""
        for (reader, name), late in self._threads.items():
            if reader == "live":
                continue
            live = self._threads["live", name]
            if late.last != live.last:
                words = f"{self._name}, {reader}: ends with {late.last}, live with {live.last}"
                self._findings.breaks(LOSS if late.last < live.last else REPEAT, words)
            for seq, event in late.events.items():
                if seq in live.events and live.events[seq] != event:
                    words = f"{self._name}, {reader}: {event}, live {live.events[seq]}"
                    self._findings.breaks(LOSS, words)

    def _stories(self) -> dict[str, Story]:
        stories: dict[str, Story] = {}
        for (reader, _), thread in self._threads.items():
            if reader == "live":
                for event in thread.events.values():
                    story = stories.setdefault(event["run"], Story(event["run"]))
                    story.events.append(event)
        return stories


def _tell_breaks(story: Story, run: _Run, breaks: Sequence[Break]) -> None:
    near = [each for each in breaks if each.touches(run.asked, run.ended or run.asked)]
    story.anything_broken = bool(near)
    story.agents_killed = any(each.takes_agents for each in near)
    story.agents_losses = sum(each.stops_agents for each in near)
    if any(each.stops_agents and each.long for each in near):
        story.agents_losses = ATTEMPTS  # nobody was there to begin it again
