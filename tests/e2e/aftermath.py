"""What must hold after parts of a chain have died: read from the log, and compared with what users saw."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.e2e.sockets import ENDINGS, Closed, Frame, Socket, connected
from tests.e2e.witness import Witness

_FREE_WITHIN_S = 40.0


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Looks at a chain that may still be coming back."""

    edge: Callable[[], str]
    """Where it is now."""
    token: Callable[[str], str]
    """For a user."""
    thoughts: int
    """How many a run of the agent `tells` was told to have."""
    story: str
    """What was done to the chain, for who reads a failure."""

    async def check_log(self, witness: Witness) -> None:
        """What the log has is what the user saw, and of every admitted run a whole story."""
        async with self._steady(witness) as socket:
            for thread, seen in witness.seen.items():
                logged = await _logged(socket, thread)
                assert _first_difference(logged, seen.events) is None, (
                    f"{self.story}: seen ≠ logged, {thread}"
                )
                assert [each["seq"] for each in logged] == list(range(1, len(logged) + 1)), (
                    self.story
                )
                for run in {each["run"] for each in logged}:
                    self._check_run(run, [each for each in logged if each["run"] == run])
                expected = {run for run, where in witness.admitted.items() if where == thread}
                missing = expected - {each["run"] for each in logged}
                assert not missing, f"{self.story}: nothing is logged of {missing}"

    def _check_run(self, run: str, events: list[Frame]) -> None:
        kinds = [each["type"] for each in events]
        assert sum(kind in ENDINGS for kind in kinds) == 1, f"{self.story}: {run} has {kinds}"
        assert kinds[-1] in ENDINGS, f"{self.story}: {run} goes on after its ending: {kinds}"
        ending = events[-1]["data"]
        if kinds[-1] != "agent_completed":
            assert (kinds[-1], ending["reason"]) == ("agent_failed", "AGENT_LOST"), (
                f"{self.story}: {ending}"
            )
            return
        assert kinds[0] == "agent_started", f"{self.story}: {run} has {kinds}"
        thoughts = [each["data"]["text"] for each in events if each["type"] == "agent_thinking"]
        assert thoughts == [f"{ending['output']} {index}" for index in range(self.thoughts)], (
            self.story
        )
        said = "".join(each["data"]["text"] for each in events if each["type"] == "message_delta")
        assert said == "".join(
            f"{ending['output']} said {index} " for index in range(self.thoughts)
        ), self.story
        assert kinds.count("tool_executing") == kinds.count("tool_completed") == self.thoughts, (
            self.story
        )

    async def check_places(self, witness: Witness) -> None:
        """Both places of the user are free: two runs at once are admitted."""
        async with asyncio.timeout(_FREE_WITHIN_S):
            while True:
                async with self._steady(witness) as socket:
                    replies = [
                        await socket.call(
                            "start", agent="waits", input={"text": "0.5"}, thread=f"after-{index}"
                        )
                        for index in range(2)
                    ]
                    runs = [each["result"]["run"] for each in replies if "result" in each]
                    for run in runs:
                        ending = await socket.ending(run)
                        assert ending["type"] == "agent_completed", f"{self.story}: {ending}"
                    if len(runs) == 2:
                        return
                await asyncio.sleep(0.5)

    @contextlib.asynccontextmanager
    async def _steady(self, witness: Witness) -> AsyncIterator[Socket]:
        """A socket on a chain that may still be coming back."""
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(30):
                while True:
                    manager = connected(self.edge(), self.token(witness.name))
                    try:
                        socket = await stack.enter_async_context(manager)
                        break
                    except (OSError, Closed):
                        await asyncio.sleep(0.2)
            yield socket


def _first_difference(logged: list[Frame], seen: list[Frame]) -> tuple[Frame, Frame] | int | None:
    """What differs first, the two lengths apart; whole lists would take minutes to show."""
    for one, other in zip(logged, seen, strict=False):
        if one != other:
            return one, other
    return None if len(logged) == len(seen) else len(logged) - len(seen)


async def _logged(socket: Socket, thread: str) -> list[Frame]:
    await socket.result("subscribe", thread=thread, after=0)
    await socket.wait_for(lambda f: f["op"] == "caught_up" and f["thread"] == thread)
    return socket.events(thread)
