"""The console in a real browser: two users side by side, a live run, a cut, a refusal, a cancel."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from playwright.async_api import Browser, Page, async_playwright, expect

from factorychain._core.ids import Principal, resumed_run_id
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import InvalidField, UserEngineLimit
from factorychain.types.v1.event_pb2 import Event, InputKind, InputRequested
from factorychain_bridge.items import Events
from tests.integration.edge.chain import Chain
from tests.integration.edge.conftest import chains
from tests.integration.edge.people import EPOCH, A
from tests.waiting import until_true

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = os.environ.get("FACTORYCHAIN_TEST_PICTURES")

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here"),
    # Playwright's transport is closed by its own garbage collection on some versions.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


FORM = """{"type":"object","required":["name","hours"],"properties":{
    "name":{"type":"string","title":"Name"},"hours":{"type":"integer","title":"Hours from now"}}}"""


# A browser on a machine that is busy.
expect.set_options(timeout=30_000)


class Script:
    """What an agent would send, one event a call."""

    def __init__(self, chain: Chain, owner: Principal, thread: str, run: str) -> None:
        self.chain, self.owner, self.thread, self.run = chain, owner, thread, run

    def emit(self, **parts: Any) -> None:
        stored = self.chain.hub.log.setdefault((self.owner, self.thread), [])
        event = Event(**parts)
        event.at.GetCurrentTime()
        found = LogBatch(
            tenant=self.owner.tenant,
            user=self.owner.user,
            thread=self.thread,
            run=self.run,
            epoch=EPOCH,
            first_seq=stored[-1].last_seq + 1 if stored else 1,
            events=[event],
        )
        stored.append(Events(found, 0))
        self.chain.hub.deliver(self.owner, self.thread, stored[-1])

    def begin(self, question: str, attempt: int = 1) -> None:
        self.emit(
            agent_started={
                "agent": "researcher",
                "input_json": orjson.dumps({"text": question}).decode(),
                "attempt": attempt,
            }
        )
        self.emit(agent_thinking={"text": "Looking for the passages that mention it"})
        self.emit(
            tool_executing={
                "call": "c1",
                "tool": "search",
                "arguments_json": '{"query":"closure free variable","limit":5}',
            }
        )
        self.emit(
            tool_completed={
                "call": "c1",
                "tool": "search",
                "ok": True,
                "result_json": '[{"file":"naming.txt","score":7.31}]',
                "duration_ms": 12,
            }
        )
        self.emit(
            tool_executing={"call": "c2", "tool": "read", "arguments_json": '{"file":"naming.txt"}'}
        )

    def answer(self, *pieces: str) -> None:
        for piece in pieces:
            self.emit(message_delta={"message": "m1", "text": piece})

    def finish(self, text: str) -> None:
        self.emit(
            tool_completed={
                "call": "c2",
                "tool": "read",
                "ok": True,
                "result_json": '"…"',
                "duration_ms": 4,
            }
        )
        output = orjson.dumps(text).decode()
        self.emit(agent_completed={"output_json": output, "message": "m1", "duration_ms": 900})


ANSWER = (
    "A **closure** is a function that remembers names of the scope it was made in.\n"
    "\n"
    "> If a name is bound in a block, it is a local variable of that block. If a variable is used in a\n"
    "> code block but not defined there, it is a *free variable*.\n"
    "\n"
    "From `naming.txt`, section 4.2.1."
)


@pytest_asyncio.fixture(loop_scope="session")
async def chain() -> AsyncIterator[Chain]:
    """One in the loop of the browser."""
    async with chains() as start:
        yield await start()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        await found.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: Browser) -> AsyncIterator[Browser]:
    """Without anybody's pages."""
    yield chromium
    for each in chromium.contexts:
        await each.close()


async def sign_in(browser: Browser, chain: Chain, user: str, scheme: str = "light") -> Page:
    context = await browser.new_context(
        viewport={"width": 1380, "height": 860},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = await context.new_page()
    problems: list[str] = []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.problems = problems  # type: ignore[attr-defined]
    await page.goto(chain.url)
    await page.fill("#in-user", user)
    await page.click("#sign-in button")
    await expect(page.locator("#state")).to_have_class("state online")
    return page


async def picture(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=Path(PICTURES) / f"{name}.png")


def runs_of(chain: Chain) -> dict[str, Script]:
    """The runs that are started from now on, by user."""
    found: dict[str, Script] = {}

    def started(user: Principal, thread: str, run: str) -> None:
        found[user.user] = Script(chain, user, thread, run)

    chain.engine.on_start = started
    return found


async def test_what_a_lost_attempt_had_said_is_not_shown_when_the_run_begins_again(
    chain: Chain, browser: Browser
) -> None:
    page = await sign_in(browser, chain, "ana")
    scripts = runs_of(chain)
    await page.fill("#text", "Again?")
    await page.press("#text", "Enter")
    await expect(page.locator(".question")).to_have_text("Again?")
    run = scripts["ana"]
    run.begin("Again?")
    run.answer("Half an ans")
    await expect(page.locator(".answer")).to_have_text("Half an ans")
    steps = await page.locator(".step").count()
    run.begin("Again?", attempt=2)
    await expect(page.locator(".badge")).to_have_text("running, attempt 2")
    await expect(page.locator(".answer")).to_have_text("")
    await expect(page.locator(".step")).to_have_count(steps)
    run.finish("A whole one")
    await expect(page.locator(".answer")).to_have_text("A whole one")


async def test_a_run_that_waits_shows_its_place_until_it_begins(
    chain: Chain, browser: Browser
) -> None:
    page = await sign_in(browser, chain, "ana")
    scripts = runs_of(chain)
    await page.fill("#text", "Later?")
    await page.press("#text", "Enter")
    await expect(page.locator(".question")).to_have_text("Later?")
    for position in (2, 1):
        scripts["ana"].emit(run_queued={"position": position, "input_json": '{"text":"Later?"}'})
        await expect(page.locator(".badge")).to_have_text(f"queued, place {position}")
    agent = await page.input_value("#agent")
    assert agent
    await expect(page.locator(".card-top b")).to_have_text(agent)
    await expect(page.locator(".stop")).to_be_visible()
    scripts["ana"].begin("Later?")
    await expect(page.locator(".badge")).to_have_text("running")


async def test_two_users_watch_their_own_runs_live(chain: Chain, browser: Browser) -> None:
    ana, ben = await asyncio.gather(
        sign_in(browser, chain, "ana"), sign_in(browser, chain, "ben", "dark")
    )
    await picture(ana, "empty")
    scripts = runs_of(chain)
    for page, name in ((ana, "ana"), (ben, "ben")):
        await page.fill("#text", f"What is a closure, {name}?")
        await page.press("#text", "Enter")
        await expect(page.locator(".question")).to_have_text(f"What is a closure, {name}?")
        scripts[name].begin(f"What is a closure, {name}?")
    await expect(ana.locator(".step")).to_have_count(3)
    scripts["ana"].answer(*(f"{word} " for word in ANSWER[:180].split(" ")))
    await expect(ana.locator(".answer")).to_contain_text("remembers")
    await picture(ana, "live")

    await ana.click("#cut")
    scripts["ana"].answer(" and goes on")
    await expect(ana.locator("#state")).to_have_class("state online")
    scripts["ana"].finish(ANSWER)
    scripts["ben"].finish("Ben's own answer.")
    await expect(ana.locator(".badge")).to_have_text("completed")
    await expect(ana.locator(".answer blockquote")).to_contain_text("local variable of that block")
    await expect(ben.locator(".answer")).to_have_text("Ben's own answer.")
    assert "ben" not in (await ana.inner_text("#runs")).lower()
    assert "ana" not in (await ben.inner_text("#runs")).lower()
    shown = await ana.eval_on_selector_all(
        "#log li[data-first]", "lines => lines.map(line => [line.dataset.first, line.dataset.last])"
    )
    seqs = [seq for first, last in shown for seq in range(int(first), int(last) + 1)]
    assert seqs == list(range(1, chain.hub.log[(A, scripts["ana"].thread)][-1].last_seq + 1))
    assert await ana.inner_text("#log-count") == str(len(seqs))
    await picture(ana, "completed")
    await picture(ben, "completed-dark")
    assert ana.problems == []  # type: ignore[attr-defined]
    assert ben.problems == []  # type: ignore[attr-defined]


async def test_what_is_asked_before_the_lists_are_there_stays(
    chain: Chain, browser: Browser
) -> None:
    chain.engine.lists.clear()
    page = await sign_in(browser, chain, "ana")
    scripts = runs_of(chain)
    await expect(page.locator(".empty h2")).to_have_text("Ask the agent something")
    await page.fill("#text", "Early?")
    await page.press("#text", "Enter")
    await expect(page.locator(".question")).to_have_text("Early?")
    chain.engine.lists.set()
    await expect(page.locator("#agent")).to_have_value("researcher")
    await expect(page.locator("#threads button")).to_have_count(1)
    scripts["ana"].begin("Early?")
    scripts["ana"].answer("Not too early")
    await expect(page.locator(".answer")).to_have_text("Not too early")
    await expect(page.locator("#title")).to_have_text("Early?")


async def test_a_refusal_says_when_to_come_back(chain: Chain, browser: Browser) -> None:
    page = await sign_in(browser, chain, "ana")
    chain.engine.failure = UserEngineLimit(2, retry_after_s=30)
    await page.fill("#text", "one more")
    await page.press("#text", "Enter")
    await expect(page.locator("#notice")).to_contain_text("USER_ENGINE_LIMIT")
    await expect(page.locator("#notice b")).to_have_text("again in 30 s")
    await expect(page.locator("#text")).to_have_value("one more")
    await picture(page, "refused")


async def test_cancel_reaches_the_engine_and_what_agents_say_is_never_markup(
    chain: Chain, browser: Browser
) -> None:
    page = await sign_in(browser, chain, "ana")
    scripts = runs_of(chain)
    await page.fill("#text", "<img src=x onerror=alert(1)>")
    await page.press("#text", "Enter")
    await expect(page.locator(".question")).to_have_text("<img src=x onerror=alert(1)>")
    run = scripts["ana"]
    run.begin("<b>x</b>")
    run.emit(agent_thinking={"text": "inside"}, path=["planner", "<b>w</b>"])
    await expect(page.locator(".step.inside .path")).to_have_text("planner › <b>w</b>")
    run.answer("<script>alert(1)</script>")
    await expect(page.locator(".answer")).to_have_text("<script>alert(1)</script>")
    await page.click(".stop")
    await until_true(lambda: chain.engine.cancelled == [run.run])
    run.emit(agent_cancelled={"reason": "USER"})
    await expect(page.locator(".badge")).to_have_text("cancelled")
    assert await page.locator("#runs img, #runs script").count() == 0
    await picture(page, "cancelled")


async def test_what_an_agent_asks_is_answered_on_the_page(chain: Chain, browser: Browser) -> None:
    page = await sign_in(browser, chain, "ana")
    scripts = runs_of(chain)
    await page.fill("#text", "Write to everybody about the release")
    await page.press("#text", "Enter")
    await expect(page.locator(".question")).to_be_visible()
    run = scripts["ana"]
    run.begin("Write to everybody about the release")
    run.emit(
        input_requested={
            "request": "q1",
            "kind": InputKind.INPUT_KIND_APPROVAL,
            "prompt": "Send this to 412 people?",
            "schema_json": '{"type":"boolean"}',
            "tool": "send_mail",
            "arguments_json": '{"to":"everybody@acme.example","subject":"Version 2 is out"}',
            "call": "c2",
            "expires_at": Timestamp(seconds=int(time.time()) + 299),
        }
    )
    await expect(page.locator(".ask-call .name")).to_have_text("send_mail")
    await expect(page.locator(".ask-head .took")).to_contain_text("left")
    await picture(page, "approval")
    await page.click(".ask-form .primary")
    await until_true(lambda: chain.engine.answers == [(run.run, "q1", "true")])
    run.emit(input_received={"request": "q1", "value_json": "true"})
    await expect(page.locator(".ask-answer")).to_have_text("Approved")

    run.emit(
        input_requested={
            "request": "q2",
            "kind": InputKind.INPUT_KIND_QUESTION,
            "prompt": "Who signs it, and when may it go out?",
            "schema_json": FORM,
        }
    )
    form = page.locator('[data-request="q2"]')
    await form.locator("input").first.fill("Ana")
    chain.engine.failure = InvalidField("value", "hours: 300 is greater than the maximum of 48")
    await form.locator("input[type=number]").fill("300")
    await form.locator("button").click()
    await expect(form.locator(".error")).to_contain_text("the maximum of 48")
    await picture(page, "question")
    chain.engine.failure = None
    await form.locator("input[type=number]").fill("3")
    await form.locator("button").click()
    await until_true(lambda: len(chain.engine.answers) == 2)
    assert orjson.loads(chain.engine.answers[1][2]) == {"name": "Ana", "hours": 3}
    run.emit(input_received={"request": "q2", "value_json": chain.engine.answers[1][2]})
    await expect(form.locator(".ask-answer")).to_contain_text("Ana")
    assert page.problems == []  # type: ignore[attr-defined]


async def test_what_a_run_ended_with_is_answered_and_the_next_run_appears(
    chain: Chain, browser: Browser
) -> None:
    page = await sign_in(browser, chain, "ana", "dark")
    scripts = runs_of(chain)
    await page.fill("#text", "Book a table")
    await page.press("#text", "Enter")
    await expect(page.locator(".question")).to_be_visible()
    run = scripts["ana"]
    run.begin("Book a table")
    choice = InputRequested(
        request="city",
        kind=InputKind.INPUT_KIND_QUESTION,
        prompt="In which city?",
        schema_json='{"enum":["Turin","Oslo","Lisbon"]}',
    )
    run.emit(agent_completed={"output_json": '"I need to know one thing."', "pending": [choice]})
    await expect(page.locator(".badge")).to_have_text("waits for you")
    await picture(page, "pending-dark")
    following = Script(chain, run.owner, run.thread, resumed_run_id(run.owner, run.run))

    def goes_on(user: Principal, request: pb.RespondToRunRequest) -> pb.RespondToRunResponse:
        following.emit(
            agent_started={
                "agent": "researcher",
                "input_json": '{"text":"Book a table"}',
                "attempt": 1,
                "resumes": run.run,
            }
        )
        return pb.RespondToRunResponse(run=following.run, thread=run.thread, epoch=EPOCH, after=5)

    chain.engine.on_answer = goes_on
    await page.locator(".pending button", has_text="Oslo").click()
    await expect(page.locator(".card")).to_have_count(2)
    await expect(page.locator(".ask-answer")).to_have_text("Oslo")
    following.finish("A table for two in Oslo.")
    await expect(page.locator(".answer").last).to_have_text("A table for two in Oslo.")
    await expect(page.locator(".question:visible")).to_have_count(1)
    await picture(page, "resumed-dark")
    assert page.problems == []  # type: ignore[attr-defined]
