"""Which engines are gone."""

from __future__ import annotations

from factorychain_engine.ownership.roll import EngineRoll

GRACE_S = 10.0


def test_an_engine_is_gone_after_it_was_missing_for_the_grace() -> None:
    roll = EngineRoll("me", GRACE_S)
    roll.look(["me", "other"], can_renew=True)
    assert roll.look(["me"], can_renew=True)
    assert roll.gone({"me", "other"}, 100) == set()
    assert roll.pending
    assert roll.gone({"other"}, 109) == set()
    assert roll.gone({"other"}, 110) == {"other"}


def test_an_engine_that_comes_back_was_never_gone() -> None:
    roll = EngineRoll("me", GRACE_S)
    roll.look(["me"], can_renew=True)
    roll.gone({"other"}, 100)
    assert not roll.look(["me", "other"], can_renew=True)
    assert roll.gone({"other"}, 200) == set()
    assert not roll.pending


def test_an_outage_starts_the_count_again() -> None:
    roll = EngineRoll("me", GRACE_S)
    roll.look(["me"], can_renew=True)
    roll.gone({"other"}, 100)
    assert not roll.look(None, can_renew=True)
    roll.look(["me"], can_renew=True)
    assert roll.gone({"other"}, 200) == set()
    assert roll.gone({"other"}, 210) == {"other"}


def test_it_counts_from_the_last_look_at_which_the_own_heartbeat_was_not_renewed() -> None:
    roll = EngineRoll("me", GRACE_S)
    for now_s in (100, 120):
        roll.look([], can_renew=False)
        assert roll.gone({"other"}, now_s) == set()
    roll.look(["me"], can_renew=True)
    assert roll.gone({"other"}, 129) == set()
    assert roll.gone({"other"}, 130) == {"other"}


def test_who_vanished_is_told_by_the_next_look_that_sees_although_one_between_saw_nothing() -> None:
    roll = EngineRoll("me", GRACE_S)
    roll.look(["me", "other"], can_renew=True)
    assert not roll.look(None, can_renew=True)
    assert roll.look(["me"], can_renew=True)


def test_this_engine_is_never_gone_to_itself() -> None:
    roll = EngineRoll("me", GRACE_S)
    roll.look([], can_renew=True)
    assert roll.gone({"me"}, 100) == set()
    assert roll.gone({"me"}, 200) == set()


def test_who_owns_nothing_any_more_is_forgotten() -> None:
    roll = EngineRoll("me", GRACE_S)
    roll.look(["me"], can_renew=True)
    roll.gone({"other"}, 100)
    roll.forget({"other"})
    assert roll.pending
    roll.forget(set())
    assert not roll.pending
