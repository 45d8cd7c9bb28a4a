"""Whether what an agent asked was asked once, and what its user answered was heard, once and unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos.findings import ANSWER, DOUBLE, OPEN, REPEAT, Findings
from tests.chaos.story import ENDINGS, Story


@dataclass(slots=True)
class Answered:
    """What a user has answered to the questions of one run."""

    given: dict[str, str] = field(default_factory=dict)
    """The answer by question, whether it was taken or not."""
    taken: set[str] = field(default_factory=set)
    """Questions of which it was said that the answer is taken."""
    following: set[str] = field(default_factory=set)
    """Runs that were said to go on with it."""


def check_dialogue(story: Story, answers: Mapping[str, Answered], findings: Findings) -> None:
    """Note down what breaks a promise."""
    answered = answers.get(story.run, Answered())
    if len(answered.following) > 1:
        findings.breaks(DOUBLE, f"{story.run} goes on in {sorted(answered.following)}")
    asked = Counter(each["data"]["request"] for each in story.of("input_requested"))
    received = Counter(each["data"]["request"] for each in story.of("input_received"))
    heard = {each["data"]["request"]: each["data"] for each in story.of("input_received")}
    if any(times > 1 for times in (*asked.values(), *received.values())):
        findings.breaks(REPEAT, f"{story.run}: asked {asked}, heard {received}")
    for question, data in heard.items():
        if not data.get("closed") and data["value"] != answered.given.get(question):
            findings.breaks(ANSWER, f"{story.run}: {data}, given {answered.given}")
    lost = story.agents_killed and story.ended_with("AGENT_LOST")
    for question in asked.keys() - heard.keys():
        if any(each["type"] in ENDINGS for each in story.events) and not lost:
            findings.breaks(OPEN, f"{story.run}: question {question} at its ending")
    for question in (answered.taken & asked.keys()) - heard.keys():
        if not lost:
            findings.breaks(ANSWER, f"{story.run}: the answer to {question} was taken, not shown")
    _check_output(story, answers, findings)


def _check_output(story: Story, answers: Mapping[str, Answered], findings: Findings) -> None:
    """What the agent says it heard is what was answered."""
    for each in story.of("agent_completed"):
        asks = story.agent == "asking" or story.resumes
        expected = list(answers.get(story.resumes or story.run, Answered()).given.values())
        output = each["data"]["output"]
        if asks and (not expected or output.get("answers") != expected):
            findings.breaks(ANSWER, f"{story.run}: {output}, given {expected}")
