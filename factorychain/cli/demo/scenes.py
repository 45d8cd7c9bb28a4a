"""What the demo shows. Each scene prints what it sees and returns what was wrong with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from factorychain._core.ids import Principal
from factorychain._core.settings import UserTokenSettings
from factorychain._core.user_tokens import mint_user_token
from factorychain.cli.demo.streams import UserStream, side_by_side
from factorychain.cli.output import out
from factorychain.client import Client, Event, Run
from factorychain.errors import UserEngineLimit
from factorychain.local.datadir import DataDir

FIVE = ("agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed")
QUESTIONS = {
    "alice": "What does the with statement do?",
    "bruno": "How do I catch an exception with try and except?",
    "chen": "How does a for loop work, and what does its else clause mean?",
}
_RUN_S = 60.0
_ANSWER_LINES = 12
# At reading pace, so that the three can be watched side by side.
_PACE_MS = 8


@dataclass(slots=True)
class Stage:
    """Where the demo plays: the edge, and the keys that make its users' tokens."""

    edge: str
    data: DataDir

    def client(self, user: str) -> Client:
        """A user's connection."""
        token = mint_user_token(
            self.data.user_secret,
            Principal("default", user),
            ttl_s=600,
            audience=UserTokenSettings().user_audience,
        )
        return Client(self.edge, token)


@dataclass(slots=True)
class Verdict:
    """What did not hold so far."""

    problems: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        """Prints whether it holds."""
        mark = "[green]✓[/]" if holds else "[bold red]✗[/]"
        out.print(f" {mark} {what}")
        if not holds:
            self.problems.append(what)


async def play(stage: Stage) -> tuple[bool, Event]:
    """Every scene; whether all held, and the ending of a run whose trace can be looked at."""
    verdict = Verdict()
    ending = await _three_at_once(stage, verdict)
    await _follow_up(stage, verdict)
    await _refused(stage, verdict)
    await _cut_and_resumed(stage, verdict)
    return not verdict.problems, ending


async def _three_at_once(stage: Stage, verdict: Verdict) -> Event:
    out.print(Rule("Three users ask at the same moment, in threads of the same name"))
    streams = {user: UserStream(user, question) for user, question in QUESTIONS.items()}
    everyone_is_connected = asyncio.Barrier(len(streams))
    with Live(get_renderable=lambda: side_by_side(streams.values(), out), console=out):
        await asyncio.gather(
            *(_ask(stage, each, everyone_is_connected) for each in streams.values())
        )
    if not out.is_terminal:
        out.print()  # a live view ends its line on a terminal only
    for user, stream in streams.items():
        firsts = list(dict.fromkeys(each.type for each in stream.events if each.type in FIVE))
        verdict.check(firsts == list(FIVE), f"{user} saw the five events in order")
        seqs = [each.seq for each in stream.events]
        verdict.check(seqs == list(range(1, len(seqs) + 1)), f"{user}'s events are dense from 1")
    runs = [{event.run for event in stream.events} for stream in streams.values()]
    verdict.check(
        all(len(own) == 1 for own in runs) and len(set.union(*runs)) == len(QUESTIONS),
        "each saw exactly one run, their own",
    )
    started = [stream.events[0].at for stream in streams.values()]
    ended = [stream.events[-1].at for stream in streams.values()]
    verdict.check(max(started) < min(ended), "the three runs overlapped in time")
    return streams["alice"].events[-1]


async def _ask(stage: Stage, stream: UserStream, everyone_is_connected: asyncio.Barrier) -> None:
    async with stage.client(stream.user) as client, asyncio.timeout(_RUN_S):
        await everyone_is_connected.wait()
        run = await client.start(
            stream.question, agent="researcher", thread="t1", metadata={"pace_ms": _PACE_MS}
        )
        async for event in run:
            stream.events.append(event)


async def _follow_up(stage: Stage, verdict: Verdict) -> None:
    out.print(Rule("Alice goes on in the same thread"))
    question = "And can it be used with more than one item?"
    async with stage.client("alice") as client, asyncio.timeout(_RUN_S):
        run = await client.start(question, agent="researcher", thread="t1")
        events = [event async for event in run]
        thread = await client.thread("t1")
    out.print(Text(question, style="bold"))
    answer = "".join(event.text for event in events if event.type == "message_delta")
    out.print(Text("\n".join(answer.splitlines()[:_ANSWER_LINES])))
    runs = thread.get("runs")
    verdict.check(events[-1].type == "agent_completed", "the follow-up was answered")
    verdict.check(isinstance(runs, list) and len(runs) == 2, "the thread remembers both runs")
    verdict.check(events[0].seq == run.after + 1, "its events go on where the first run's ended")


async def _refused(stage: Stage, verdict: Verdict) -> None:
    out.print(Rule("A third run of one user is refused, and one is cancelled"))
    async with stage.client("dora") as client, asyncio.timeout(_RUN_S):
        runs = [await client.start("10", agent="demo-slow", thread=f"s{i}") for i in range(2)]
        refusal: UserEngineLimit | None = None
        try:
            await client.start("10", agent="demo-slow", thread="s3")
        except UserEngineLimit as error:
            refusal = error
        out.print(f"   {refusal.reason}: {refusal.message}" if refusal else "   not refused")
        verdict.check(
            refusal is not None and (refusal.retry_after_s or 0) > 0,
            "the third run was refused with a time to try again"
            + (f": {refusal.retry_after_s:g} s" if refusal and refusal.retry_after_s else ""),
        )
        for run in runs:
            await run.cancel()
            verdict.check(await _ending(run) == "agent_cancelled", f"run {run.id} was cancelled")
        again = await client.start("0.1", agent="demo-slow", thread="s4")
        verdict.check(await _ending(again) == "agent_completed", "then there was a place again")


async def _ending(run: Run) -> str:
    return [event async for event in run][-1].type


async def _cut_and_resumed(stage: Stage, verdict: Verdict) -> None:
    out.print(Rule("A socket is cut in the middle of a run, and the client resumes"))
    async with stage.client("emil") as client, asyncio.timeout(_RUN_S):
        run = await client.start("3", agent="demo-slow", thread="cut")
        seen: list[Event] = []
        async for event in run:
            seen.append(event)
            if len(seen) in (5, 15):
                await client.cut()
        connections = client.connections
    seqs = [event.seq for event in seen]
    out.print(f"   {len(seen)} events over {connections} connections")
    verdict.check(connections == 3, "the socket was cut twice")
    verdict.check(
        seqs == list(range(1, len(seqs) + 1)) and seen[-1].type == "agent_completed",
        "nothing was lost and nothing repeated",
    )
