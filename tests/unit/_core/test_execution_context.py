from __future__ import annotations

import dataclasses

import pytest

from factorychain._core.keys import TxnKey
from factorychain._core.txn_tokens import TxnSigner
from tests.token_samples import TRUST_DOMAIN, Clock, issued

context = issued(TxnSigner(TxnKey.generate(), TRUST_DOMAIN, Clock()))


def test_nothing_in_a_context_can_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.thread = "other"  # type: ignore[misc]  # that is what is tested
    with pytest.raises(TypeError):
        context.limits["output_max_bytes"] = 1  # type: ignore[index]  # as above


def test_changing_the_mapping_that_it_was_made_of_changes_nothing() -> None:
    limits = {"output_max_bytes": 1}
    made = dataclasses.replace(context, limits=limits)
    limits["output_max_bytes"] = 2
    assert made.limits["output_max_bytes"] == 1


def test_its_text_does_not_show_the_token() -> None:
    assert context.token
    assert context.token not in repr(context)


def test_it_can_be_a_key() -> None:
    assert {context: 1}[dataclasses.replace(context)] == 1
