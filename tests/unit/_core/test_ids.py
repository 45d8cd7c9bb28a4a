from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core import ids
from factorychain._core.ids import Principal
from factorychain.errors import InvalidField, RunNotFound

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
principals = st.builds(Principal, names, names)


def test_a_principals_key_does_not_change_between_versions() -> None:
    # Stored subjects and keys depend on these values.
    assert Principal("acme", "ada").ukey == "f5c3388a1251305d76afcc54"
    assert ids.thread_key("t1") == "b0df3ef266f2d6799460f721"
    assert ids.run_id_for(Principal("acme", "ada"), "req-1") == "rtrhbd6ilt3md57b2ly7libis"


@given(principals, principals)
def test_two_principals_share_a_key_only_if_they_are_the_same(
    one: Principal, other: Principal
) -> None:
    assert (one.ukey == other.ukey) == (one == other)


def test_moving_a_character_between_tenant_and_user_makes_another_principal() -> None:
    assert Principal("ab", "c").ukey != Principal("a", "bc").ukey


@pytest.mark.parametrize(("tenant", "user"), [("", "ada"), ("acme", "")])
def test_a_principal_without_a_name_cannot_be_made(tenant: str, user: str) -> None:
    with pytest.raises(ValueError, match="needs a tenant and a user"):
        Principal(tenant, user)


def test_the_same_request_of_two_users_makes_two_runs() -> None:
    assert ids.run_id_for(Principal("t", "a"), "1") != ids.run_id_for(Principal("t", "b"), "1")


@given(principals, names)
def test_a_run_id_is_repeatable_and_well_formed_and_so_is_its_thread(
    who: Principal, request: str
) -> None:
    run = ids.run_id_for(who, request)
    assert run == ids.run_id_for(who, request)
    assert ids.parse_run_id(run) == run
    assert ids.parse_thread_id(ids.thread_id_for(run)) == ids.thread_id_for(run)


@given(principals, names, st.integers(1, 256))
def test_a_threads_subject_names_its_shard_and_no_text_of_the_user(
    who: Principal, thread: str, shards: int
) -> None:
    tkey = ids.thread_key(thread)
    shard = ids.shard_of(who.ukey, tkey, shards)
    assert 0 <= shard < shards
    assert ids.log_subject(shards, who.ukey, tkey) == f"ev.{shard}.{who.ukey}.{tkey}"


def test_threads_spread_over_all_shards() -> None:
    ukey = Principal("t", "u").ukey
    used = {ids.shard_of(ukey, ids.thread_key(f"t{n}"), 8) for n in range(200)}
    assert used == set(range(8))


@pytest.mark.parametrize("value", ["a", "A.b_c:d-e", "x" * 128])
def test_a_thread_id_of_the_allowed_characters_is_accepted(value: str) -> None:
    assert ids.parse_thread_id(value) == value


@pytest.mark.parametrize("value", ["", "a b", "ä", "x" * 129, "a\n", "a/b", "*", ">"])
def test_any_other_thread_id_is_refused_by_field_name(value: str) -> None:
    with pytest.raises(InvalidField) as refused:
        ids.parse_thread_id(value, "start.thread")
    assert refused.value.field == "start.thread"


@pytest.mark.parametrize(
    "value",
    [
        "r",
        "r" + "a" * 23,
        "r" + "A" * 24,
        "r" + "1" * 24,
        "t" + "a" * 24,
        "r" + "a" * 24 + "\n",
    ],
)
def test_what_has_not_the_form_of_a_run_id_is_a_run_that_is_not_there(value: str) -> None:
    with pytest.raises(RunNotFound):
        ids.parse_run_id(value)


def test_a_run_id_must_be_there() -> None:
    with pytest.raises(InvalidField):
        ids.parse_run_id("")


def test_request_ids_are_not_repeated() -> None:
    assert len({ids.new_request_id() for _ in range(1000)}) == 1000
