"""A reading list in plain Python: tools, a sub-agent, and what is kept from one run to the next."""

from pydantic import BaseModel

from factorychain import Agent, AgentError, RunContext, ToolError, tool

PAGES = {"walden": 352, "emma": 474, "ulysses": 730}


class Book(BaseModel):
    """One book, and how long it takes."""

    title: str
    hours: float


class Estimator(Agent):
    """Estimates how long it takes to read a book."""

    name = "estimator"

    @tool
    async def pages(self, title: str) -> int:
        """How many pages a book has."""
        found = PAGES.get(title.lower())
        if found is None:
            raise ToolError(f"I do not know {title}; I know {', '.join(PAGES)}")
        return found

    async def run(self, ctx: RunContext, text: str) -> Book:
        await ctx.think(f"Looking {text} up")
        return Book(title=text, hours=round(await self.pages(text) / 40, 1))


class ReadingList(Agent):
    """Keeps a reading list: "add TITLE", or anything else to see it."""

    name = "reading-list"

    async def run(self, ctx: RunContext, text: str) -> str:
        command, _, title = text.partition(" ")
        if command == "add" and title:
            await self._add(ctx, title)
        books = [Book.model_validate(each) for each in await ctx.state.get([])]
        async with ctx.message() as message:
            for book in books:
                await message.write(f"{book.title}: {book.hours:g} hours\n")
            await message.write(f"{sum(book.hours for book in books):g} hours in all")
        return message.text

    async def _add(self, ctx: RunContext, title: str) -> None:
        try:
            book = await ctx.run(Estimator, title)  # its events carry path ["estimator"]
        except ToolError as error:
            raise AgentError(error.message) from error
        # The function gets what is kept and returns what is to be kept instead.
        await ctx.state.update(lambda books: [*books, book], default=[])
