"""Counted parts against rules counted by hand; rows of the test cannot move them."""

from __future__ import annotations

import pytest
import torch

from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.settings import DECAYS, RULES
from recbole_mm.model.parts.counted import (
    Lexical,
    Transitions,
    UnseenItems,
    Variant,
    counted_parts,
)

N_ITEMS = 6


def history(rows, *lists):
    made = rows(*lists)
    return History.of(made["item_id_list"], made["item_length"], N_ITEMS)


def z(values):
    """Return z-scores over items 1 to 5."""
    found = torch.tensor(values)
    return (found - found.mean()) / found.std(correction=0)


def test_transitions_by_hand(data, rows):
    """Directly after 2: item 3 once, item 1 twice (sessions 3 and 4)."""
    part = Transitions(data, N_ITEMS)
    found = part.z(history(rows, [3, 2]), Variant(0.0, "markov"), "cpu")
    torch.testing.assert_close(found[0, 1:], z([2 / 3, 0.0, 1 / 3, 0.0, 0.0]))
    assert float(found[0, 0]) == 0.0


def test_a_markov_chain_has_no_decay_to_choose(data):
    """The other rules are tried with each decay."""
    found = Transitions(data, N_ITEMS).variants
    decays = {rule: [one.decay for one in found if one.rule == rule] for rule in RULES}
    assert decays == {**dict.fromkeys(RULES, [*DECAYS]), "markov": [0.0]} and len(DECAYS) > 1


def test_the_decay_weighs_the_history(data, rows):
    """Markov of item 3 is 4 alone, of item 4 it is 2: weights exp(-1/2) and 1."""
    part = Transitions(data, N_ITEMS)
    found = part.z(history(rows, [3, 4]), Variant(2.0, "sequential"), "cpu")
    torch.testing.assert_close(found[0, 1:].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    raw = part.raw(history(rows, [3, 4]), Variant(2.0, "sequential"))[0]
    # After 4: item 2 at distance 1, item 1 at distance 2, so 2/3 and 1/3.
    expected = torch.tensor([0.0, 1 / 3, 2 / 3, 0.0, 0.606531, 0.0])
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=0)


def test_lexical_is_zero_without_shared_words(data, rows):
    """Item 1, red lamp: nearest is itself, then 2 (red lamp shade); 4 (blue chair) shares none."""
    (part,) = counted_parts(data, ["lexical"], N_ITEMS)
    assert isinstance(part, Lexical)
    raw = part.raw(history(rows, [1]), Variant(0.0))[0]
    assert float(raw[1]) == pytest.approx(1.0, abs=1e-6)
    assert float(raw[2]) > float(raw[3]) > 0.0
    assert float(raw[4]) == 0.0


def test_an_unknown_history_scores_all_alike(data, rows):
    """Item 5 stands in no session."""
    part = Transitions(data, N_ITEMS)
    for variant in part.variants:
        assert not bool(part.z(history(rows, [5]), variant, "cpu").any())


def test_without_text_lexical_is_left_out_and_that_is_said(data, caplog):
    data.item_columns.path.unlink()
    found = counted_parts(data, ["transitions", "lexical"], N_ITEMS)
    assert [part.name for part in found] == ["transitions"]
    assert "lexical is left out" in caplog.text and "text_fields" in caplog.text


def test_unseen_items_are_those_that_no_session_holds(data, rows):
    """Item 5; padding is no item."""
    (part,) = counted_parts(data, ["unseen_items"], N_ITEMS)
    assert isinstance(part, UnseenItems)
    found = part.z(history(rows, [1, 2], [5]), part.variants[0], "cpu")
    assert found.tolist() == [[0, 0, 0, 0, 0, 1]] * 2


def test_parts_come_in_one_order(data):
    wanted = ["unseen_items", "lexical", "transitions"]
    found = [part.name for part in counted_parts(data, wanted, N_ITEMS)]
    assert found == ["transitions", "lexical", "unseen_items"]
    assert counted_parts(data, ["own_items"], N_ITEMS) == []
