"""A run at the sending end: how it is tried again when its receiver cannot take it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from factorychain._core.link import run as run_module
from factorychain._core.link.refusal import Refusal
from factorychain._core.link.run import HEALTHY_AFTER_S, LinkRun
from tests.token_samples import run_context

BUSY = Refusal("CHAIN_DEGRADED", "not now", retryable=True)


class Link:
    """A link that carries nothing."""

    def touch(self, run: LinkRun) -> None: ...

    def resume(self, run: LinkRun) -> None: ...

    def close(self, run: LinkRun) -> None: ...


async def test_only_a_run_that_was_open_for_a_while_begins_its_back_off_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, waited = [0.0], list[int]()

    def backoff_s(failures: int) -> float:
        waited.append(failures)
        return 3600.0

    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    monkeypatch.setattr(run_module, "backoff_s", backoff_s)
    run = LinkRun(
        Link(), run_context(), trace="", resumed=False, durable_run_seq=0, open_calls=(),
        observer=None, on_rejected=None,
    )  # fmt: skip
    for open_for_s in (None, HEALTHY_AFTER_S / 2, HEALTHY_AFTER_S / 2, HEALTHY_AFTER_S, 0.0, None):
        if open_for_s is not None:
            run.opened(0)
            now_s[0] += open_for_s
        else:  # refused, however long that took
            now_s[0] += 10 * HEALTHY_AFTER_S
        run.paused(BUSY)
    await run.close()
    assert waited == [0, 1, 2, 0, 1, 2]
