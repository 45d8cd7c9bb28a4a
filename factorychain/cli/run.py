"""`factorychain run`: one run, streamed to the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated

import orjson
import typer

from factorychain.cli import options
from factorychain.cli.answering import Answering, Question
from factorychain.cli.events_view import begins_again, event_line
from factorychain.cli.output import FAILED, command_line, err, fail
from factorychain.client import Client, Event, Json, Run
from factorychain.errors import FactoryChainError

_GIVE_UP_S = 30.0


class WhenBusy(StrEnum):
    """What to do while the conversation has an active run."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"


def run(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to ask.")],
    user: options.SessionUser,
    agent: Annotated[
        str | None, typer.Option(metavar="A", help="The agent; without, the chain's default.")
    ] = None,
    thread: Annotated[
        str | None, typer.Option(metavar="T", help="The conversation to go on with.")
    ] = None,
    on_busy: Annotated[
        WhenBusy,
        typer.Option(
            help="If the run cannot start at once: refuse, wait for its turn, or cancel what the conversation does."
        ),
    ] = WhenBusy.REJECT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one event object a line instead.")
    ] = False,
    tenant: options.Tenant = "default",
    data: options.Data = options.DATA_DEFAULT,
) -> None:
    """Stream one run, and answer what it asks. Exit status: 0 completed, 1 failed or cancelled, 2 refused.
    ^C cancels it.
    """
    directory, state = options.running_chain(data)
    token = options.session_token(directory, user, tenant)
    try:
        ending = asyncio.run(
            _stream(state.edge, token, user, text, agent, thread, on_busy, as_json)
        )
    except FactoryChainError as error:
        fail(f"{error.message} ({error.reason})", _hint(error))
    if ending.type != "agent_completed":
        raise typer.Exit(FAILED)


async def _stream(
    edge: str,
    token: str,
    user: str,
    text: str,
    agent: str | None,
    thread: str | None,
    on_busy: WhenBusy,
    as_json: bool,
) -> Event:
    async with Client(edge, token, give_up_after_s=_GIVE_UP_S) as client:
        started = await client.start(text, agent=agent, thread=thread, on_busy=on_busy.value)
        return await Streaming(client, user, as_json).stream(started)


class Streaming:
    """Shows a run, asks what it asks, and goes on with the run that goes on for it."""

    def __init__(self, client: Client, user: str, as_json: bool) -> None:
        self._as_json = as_json
        interactive = not as_json and sys.stdin.isatty() and sys.stderr.isatty()
        self._answering = Answering(
            client.respond, lambda asked: _how_to_answer(user, asked), interactive
        )

    async def stream(self, run: Run) -> Event:
        """Until nothing goes on; the ending."""
        following: Run | None = run
        while following is not None:
            run = following
            async with _cancel_on_interrupt(run):
                try:
                    await (self._print_json(run) if self._as_json else self._print_for_people(run))
                finally:
                    await self._answering.close()
            following = await self._answering.pending(run)
        assert run.ending is not None, "the events of a run stop at its ending"
        return run.ending

    async def _hear(self, event: Event) -> None:
        if begins_again(event):
            await self._answering.close()  # what a lost attempt has asked nobody waits for
        if event.type == "input_requested":
            self._answering.ask(Question(event.run, event.data))
        elif event.type == "input_received":
            self._answering.settled(str(event.data.get("request")))

    async def _print_json(self, run: Run) -> None:
        async for event in run:
            print(orjson.dumps(event.json() | {"thread": event.thread}).decode(), flush=True)
            await self._hear(event)

    async def _print_for_people(self, run: Run) -> None:
        """What the agent does goes to stderr, its answer to stdout."""
        streamed = False
        async for event in run:
            if event.type == "message_delta":
                _write(event.text)
                streamed = True
                continue
            await self._hear(event)
            line = event_line(event)
            if line is None:
                continue
            if streamed:
                _write("\n")
            elif event.type == "agent_completed" and not event.questions:
                _write(f"{_text(event.data.get('output'))}\n")
            streamed = False
            err.print(line)


def _how_to_answer(user: str, asked: Question) -> str:
    value = "true" if asked.is_yes_or_no else "VALUE"
    return f"{command_line()} respond --user {user} {asked.run} {asked.request} {value}"


def _write(text: str) -> None:
    """As it is: the answer is data, which a console would wrap, colour or read as markup."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _text(output: Json) -> str:
    return output if isinstance(output, str) else orjson.dumps(output).decode()


@contextlib.asynccontextmanager
async def _cancel_on_interrupt(run: Run) -> AsyncIterator[None]:
    """^C cancels the run and waits for its ending; a second one leaves at once."""
    loop = asyncio.get_running_loop()
    cancelling: list[asyncio.Task[None]] = []

    def interrupted() -> None:
        if cancelling:
            raise KeyboardInterrupt
        err.print("cancelling …")
        cancelling.append(asyncio.create_task(_cancel(run)))

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        # The ending can come before the answer to the cancel, which nobody needs any more.
        for task in cancelling:
            task.cancel()
        await asyncio.gather(*cancelling, return_exceptions=True)


async def _cancel(run: Run) -> None:
    try:
        await run.cancel()
    except FactoryChainError as error:
        err.print(f"the run could not be cancelled: {error.message}", markup=False)


def _hint(error: FactoryChainError) -> str:
    if error.reason == "USER_ENGINE_LIMIT":
        return f"again in {error.retry_after_s or 1:g} s, or --on-busy enqueue, which waits"
    if error.retry_after_s is not None:
        return f"again in {error.retry_after_s:g} s"
    return {
        "THREAD_BUSY": "--on-busy enqueue   waits for it",
        "AGENT_NOT_FOUND": "factorychain agents --user U   lists those that there are",
        "AGENT_DEPENDENCY_MISSING": "factorychain agents --user U   says what is missing",
        "TOKEN_EXPIRED": "a new token",
        "TOKEN_INVALID": options.token_hint(),
    }.get(error.reason, "")
