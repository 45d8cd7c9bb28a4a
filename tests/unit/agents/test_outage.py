"""When nothing that a run says gets anywhere: it ends after that time, and not before."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain_agents.outage import Outage, OutageWatch

MAX_S = 30.0
LOOK_S = MAX_S / 10


def looks(outage: Outage, upto_s: float, *, durable: int = 0, owed: bool = True) -> float | None:
    """Looks until then, as often as it is to be; when it has lasted for too long."""
    now_s = outage._looked_at_s
    while now_s < upto_s:
        now_s = min(now_s + outage.look_s, upto_s)
        if outage.look(now_s, durable, owed=owed):
            return now_s
    return None


def test_an_outage_of_25_s_is_survived_and_one_that_lasts_ends_the_run() -> None:
    outage = Outage(MAX_S, 0.0)
    assert looks(outage, 25.0) is None
    assert looks(outage, 26.0, durable=1) is None, "what was said is confirmed"
    assert looks(outage, 51.0, durable=1) is None, "the next one begins anew"
    assert looks(outage, 100.0, durable=1, owed=False) is None, "nothing is to be confirmed"
    ended_s = looks(outage, 200.0, durable=1)
    assert ended_s is not None
    assert 100.0 + MAX_S <= ended_s <= 100.0 + MAX_S + 2 * LOOK_S


def test_whatever_is_confirmed_counts_though_more_is_owed() -> None:
    outage = Outage(MAX_S, 0.0)
    for durable in range(100):
        assert looks(outage, 20.0 * (durable + 1), durable=durable) is None


def test_time_in_which_this_process_stood_still_does_not_count() -> None:
    outage = Outage(MAX_S, 0.0)
    assert looks(outage, 10.0) is None
    assert not outage.look(3600.0, 0, owed=True)


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.booleans(), st.booleans()), min_size=1, max_size=60
    ).map(lambda steps: [(round(s, 3), owed, confirmed) for s, owed, confirmed in steps])
)
def test_a_run_ends_for_time_that_was_watched_without_a_confirmation_alone(
    steps: list[tuple[float, bool, bool]],
) -> None:
    outage, now_s, durable, watched_s, was_owed = Outage(MAX_S, 0.0), 0.0, 0, 0.0, False
    for step_s, owed, confirmed in steps:
        now_s += step_s
        durable += confirmed
        silent = owed and was_owed and not confirmed
        watched_s = watched_s + min(step_s, 2 * LOOK_S) if silent else 0.0
        was_owed = owed
        ends = outage.look(now_s, durable, owed=owed)
        assert ends == (watched_s >= MAX_S) or abs(watched_s - MAX_S) < 1e-6


class Mute:
    """What a run said, of which nothing is confirmed."""

    durable_run_seq = 0
    owed = True


async def test_a_run_that_is_over_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()

    def look(*_: object, **__: object) -> bool:
        looked.set()
        return True

    monkeypatch.setattr(Outage, "look", look)
    ended: list[str] = []
    over, going_on = (OutageWatch(0.05, lambda n=name: ended.append(n)) for name in ("over", "on"))  # type: ignore[misc]
    over.start(Mute())
    over.stop()
    going_on.start(Mute())
    await looked.wait()
    assert ended == ["on"]
