"""The console in a real browser: two users side by side, a live run, a cut, a refusal, a cancel."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from factorychain._core.ids import Principal
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.errors import UserEngineLimit
from factorychain.types.v1.event_pb2 import Event
from factorychain_bridge.items import Events
from tests.integration.edge.chain import Chain
from tests.integration.edge.people import EPOCH, A
from tests.waiting import until_true

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = os.environ.get("FACTORYCHAIN_TEST_PICTURES")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here"),
    # Playwright's transport is closed by its own garbage collection on some versions.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


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

    def begin(self, question: str) -> None:
        self.emit(
            agent_started={
                "agent": "researcher",
                "input_json": orjson.dumps({"text": question}).decode(),
                "attempt": 1,
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


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        await found.close()


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
    run.answer("<script>alert(1)</script>")
    await expect(page.locator(".answer")).to_have_text("<script>alert(1)</script>")
    await page.click(".stop")
    await until_true(lambda: chain.engine.cancelled == [run.run])
    run.emit(agent_cancelled={"reason": "USER"})
    await expect(page.locator(".badge")).to_have_text("cancelled")
    assert await page.locator("#runs img, #runs script").count() == 0
    await picture(page, "cancelled")
