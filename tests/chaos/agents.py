"""The agents of the users under chaos: they say numbered things, and write down which were taken from them.

A line `taken CANARY@ATTEMPT#N` on the standard output says that the `await` which said number N had
returned. Each tells its story, `canary|steps|pause_ms`; everything it says has its number behind `#`.
"""

from __future__ import annotations

import asyncio

from factorychain import Agent, Interrupt, Request, RunContext, tool


class _Teller(Agent):
    """What they have in common."""

    name = "teller"

    @tool
    async def keep(self, text: str) -> str:
        """Keeps a text for a moment."""
        await asyncio.sleep(0)
        return text

    async def tell(self, ctx: RunContext, canary: str, steps: int, pause_ms: int, said: int) -> int:
        """The next number, after some steps."""
        async with ctx.message() as message:
            for step in range(steps):
                await ctx.think(f"{canary}#{said} ")
                await self.keep(text=f"{canary}#{said + 1} ")
                await message.write(f"{canary}#{said + 2} ")
                said += 3
                if step % 3 == 0:
                    await ctx.emit("note", {"text": f"{canary}#{said} "})
                    said += 1
                print(f"taken {canary}@{ctx.attempt}#{said - 1}")
                await asyncio.sleep(pause_ms / 1000)
        return said


class Scripted(_Teller):
    """Tells it."""

    name = "scripted"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        canary, steps, pause_ms = _read(text)
        said = await self.tell(ctx, canary, steps, pause_ms, 0)
        return {"canary": canary, "said": said}


class Repeating(Scripted):
    """Tells it again if it is lost."""

    name = "repeating"
    repeat_safe = True


class Asking(_Teller):
    """Asks its user in the middle."""

    name = "asking"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        canary, steps, pause_ms = _read(text)
        said = await self.tell(ctx, canary, steps // 2, pause_ms, 0)
        answer = await ctx.ask(f"{canary}#{said} ", {"type": "string"}, timeout_s=3600)
        said = await self.tell(ctx, canary, steps - steps // 2, pause_ms, said + 1)
        return {"canary": canary, "said": said, "answers": [answer]}


class Interrupting(_Teller):
    """Ends with a question in the middle; the next run tells the rest."""

    name = "interrupting"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        canary, steps, pause_ms = _read(text)
        if ctx.resume is None:
            said = await self.tell(ctx, canary, steps // 2, pause_ms, 0)
            question = Request(prompt=f"{canary}?", request="more", schema={"type": "string"})
            raise Interrupt(question, output={"canary": canary, "said": said})
        canary += "-next"
        said = await self.tell(ctx, canary, steps - steps // 2, pause_ms, 0)
        return {"canary": canary, "said": said, "answers": list(ctx.resume.values())}


def _read(text: str) -> tuple[str, int, int]:
    canary, steps, pause_ms = text.split("|")
    return canary, int(steps), int(pause_ms)
