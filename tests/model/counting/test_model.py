"""ContentKNN, Counting, and what is chosen on validation."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from recbole_mm.errors import FeatureError
from recbole_mm.model.counting.content import (
    content_partners,
    cosine_partners,
    tfidf,
    with_new_partners,
)

TITLES = ["red lamp", "red lamp shade", "blue lamp", "blue chair", "red chair"]
OPEN = ("rule", "decay", "beta", "own_last")


def dense_cosines() -> np.ndarray:
    terms = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    table = terms.fit_transform(["", *TITLES]).toarray()
    return table @ table.T


def z(row: np.ndarray) -> np.ndarray:
    real = row[1:]
    return np.concatenate(([0], (real - real.mean()) / real.std()))


def test_content_is_the_decayed_sum_of_dense_cosines(make, rows):
    model = make("ContentKNN", decay=2.0, own_last=False)
    scores = model.full_sort_predict(rows([1, 4], [5])).numpy()[:, 1:]
    cosine = dense_cosines()
    expected = np.stack([cosine[4] + math.exp(-0.5) * cosine[1], cosine[5]])
    np.testing.assert_allclose(scores, expected[:, 1:], atol=2e-6)


def test_only_the_nearest_are_kept():
    random = np.random.default_rng(0)
    table = random.random((30, 4)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    kept = cosine_partners(table, 3).toarray()
    dense = table @ table.T
    for row, full in zip(kept, dense, strict=True):
        assert set(np.flatnonzero(row)) == set(np.argsort(-full)[:3])
        np.testing.assert_allclose(row[row > 0], full[row > 0])


def test_cosines_in_tiles_are_the_same(monkeypatch):
    table = tfidf(["", *TITLES])
    whole = cosine_partners(table, 6).toarray()
    monkeypatch.setattr("recbole_mm.model.counting.content._TILE_BYTES", 50)
    np.testing.assert_array_equal(cosine_partners(table, 6).toarray(), whole)


@pytest.mark.parametrize(("known", "count"), [(20, 3), (4, 4), (3, 5)])
def test_partners_of_new_items_one_cosine_after_the_other(known, count):
    """Rows of known items grow by the new ones above their least; new items choose among all."""
    random = np.random.default_rng(known)
    table = random.standard_normal((known + 6, 3)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table[1] = 0  # an item without content is left out of all rows, so that some are not full
    cosine = table @ table.T
    expected = np.zeros_like(cosine)
    for item in range(len(table)):
        seen = known if item < known else len(table)
        best = [*np.argsort(-cosine[item, :seen])[:count]]
        kept = [value for value in cosine[item, best] if value != 0]
        least = min(kept) if len(kept) >= count else (-math.inf if known <= count else 0)
        if item < known:
            best += [new for new in range(known, len(table)) if cosine[item, new] > least]
        expected[item, best] = cosine[item, best]
    old = cosine_partners(table[:known], count)
    found = with_new_partners(old, table, count).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_new_item_that_is_as_near_as_the_last_one_is_no_partner():
    """By hand, two kept: items 0 to 2 keep cosines 1 and 0.6; item 3 is item 2 again."""
    table = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8], [0.6, -0.8]], dtype=np.float32)
    old = cosine_partners(table[:3], 2)
    found = with_new_partners(old, table, 2).toarray()
    assert (found[0, [0, 3]] == [1, 0]).all() and (found[0, [1, 2]] > 0).sum() == 1
    np.testing.assert_allclose(found[2], [0.6, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[3], [0, 0, 1, 1], atol=1e-6)


def test_vectors_of_a_modality(make, rows):
    vectors = torch.tensor([[0.0, 0], [3, 0], [0, 2], [1, 1], [1, 0], [0, 0]])
    model = make(
        "ContentKNN", modality="image", features={"image": vectors}, decay=0.0, own_last=False
    )
    scores = model.full_sort_predict(rows([3])).numpy()[0, 1:]
    np.testing.assert_allclose(scores, [0.5**0.5, 0.5**0.5, 1, 0.5**0.5, 0], atol=2e-6)
    assert model.settings.feature_files(()) == ("image",)


def test_an_item_whose_vector_is_made_up_is_nobodys_partner(make_dataset):
    """With missing_features: mean such an item has a row in the table, but is not in the mask."""
    vectors = torch.tensor([[0.0, 0], [3, 1], [1, 2], [1, 1], [1, 3], [2, 2]])
    dataset = make_dataset([[1, 2, 3]], 6, features={"image": vectors}, missing=[5])
    dataset.item_features.tables["image"][5] = torch.tensor([2.0, 2.0])
    partners = content_partners(dataset, "image", 6).toarray()
    assert np.isfinite(partners).all()
    assert not partners[5].any() and not partners[:, 5].any()
    assert partners[3, 4] == pytest.approx(4 / math.sqrt(20))


def test_no_text_is_said(make):
    with pytest.raises(FeatureError, match=r"finds no text in .*Tiny\.item"):
        make("ContentKNN", titles=())
    with pytest.raises(FeatureError, match="finds no text"):
        make("ContentKNN", titles=["one", "two", "three", "four", "five"])
    with pytest.raises(FeatureError, match="no image features"):
        make("ContentKNN", modality="image")


def test_counting_is_the_sum_of_z_scores(make, rows):
    given = {"rule": "cooccurrence", "decay": 1.5}
    rule = make("SessionRules", **given, own_last=False).counts["cooccurrence"].toarray()
    model = make("Counting", **given, beta=0.5, own_last=False)
    scores = model.full_sort_predict(rows([1, 4])).numpy()[0, 1:]
    a, cosine = math.exp(-1 / 1.5), dense_cosines()
    expected = z(rule[4] + a * rule[1]) + 0.5 * z(cosine[4] + a * cosine[1])
    np.testing.assert_allclose(scores, expected[1:], atol=1e-5)


def test_counting_without_texts_is_the_rule_alone(make, rows, caplog):
    with caplog.at_level(logging.INFO):
        model = make("Counting", titles=(), beta=2.0, decay=1.5, own_last=False, rule="markov")
    assert "the rule alone" in caplog.text
    assert model.grid().beta == (0.0,)
    table = model.counts["markov"].toarray()
    scores = model.full_sort_predict(rows([2])).numpy()[0, 1:]
    np.testing.assert_allclose(scores, z(table[2])[1:], atol=1e-5)


# Every session goes up by one and comes back by one, so that only the direction tells the next.
CIRCLE = [[1 + (start + step) % 8 for step in range(4)] for start in range(8)] * 3


def test_what_fits_the_validation_rows_is_chosen(make, rows, loader, caplog):
    model = make("Counting", CIRCLE, 9, titles=())
    valid = rows([3], [5], [8], target=[4, 6, 1])
    with caplog.at_level(logging.INFO):
        model.tune(loader(valid))
    assert model.chosen["rule"] in ("sequential", "markov")
    assert "Counting: chosen on validation: rule" in caplog.text
    found = model.diagnostics(None, None)
    assert found[f"chosen/rule_{model.chosen['rule']}"] == 1.0
    assert set(found) == {f"chosen/rule_{model.chosen['rule']}", "chosen/decay", "chosen/own_last"}
    again = make("Counting", CIRCLE, 9, titles=())
    again.tune(loader(valid))
    assert again.chosen == model.chosen


def test_the_best_of_all_choices_is_taken(make, rows, loader):
    valid = rows([1, 2], [3, 1], [4, 2, 1], target=[3, 4, 2])
    model = make("Counting")
    model.tune(loader(valid))

    def gain(**given):
        from recbole_mm.model.counting.scores import ndcg

        scores = make("Counting", **given).full_sort_predict(valid)
        return float(ndcg(scores, valid["item_id"]).sum())

    grid = model.grid()
    every = [
        gain(rule=rule, decay=decay, beta=beta, own_last=last)
        for rule in grid.rule
        for decay in (0.0, 1.5)
        for beta in (0.0, 0.5)
        for last in grid.own_last
    ]
    chosen = gain(**{key: model.chosen[key] for key in OPEN})
    assert chosen >= max(every) - 1e-9
    assert min(every) < chosen


def test_many_validation_rows_are_read_in_parts_and_thinned_out(make, rows, loader, monkeypatch):
    model = make("Counting")
    valid = rows(*[[1, 2]] * 40, target=[1 + place % 5 for place in range(40)])
    read = [batch["item_id"] for batch in model._batches(loader(valid))]
    assert [len(part) for part in read] == [40]
    monkeypatch.setattr("recbole_mm.model.counting.base._CELLS", 60)
    monkeypatch.setattr("recbole_mm.model.counting.base._BATCH", 4)
    parts = [batch["item_id"] for batch in model._batches(loader(valid))]
    assert [len(part) for part in parts] == [4, 4, 2]
    places = [0, 4, 8, 13, 17, 21, 26, 30, 34, 39]
    assert torch.cat(parts).tolist() == [1 + place % 5 for place in places]


def test_given_keys_are_taken_as_they_are(make, rows, loader):
    given = {"rule": "association", "decay": 3.0, "beta": 0.7, "own_last": True}
    model = make("Counting", **given)
    model.tune(loader(rows([1, 2], target=[3])))
    assert model.chosen == given
    assert model.diagnostics(None, None) == {}


def test_what_was_chosen_goes_with_the_checkpoint(make, rows, loader):
    model, fresh = make("Counting"), make("Counting")
    model.tune(loader(rows([1, 2], [3, 1], target=[3, 4])))
    model.chosen |= {"decay": 4.0, "own_last": True, "rule": "markov"}
    fresh.load_state_dict(model.state_dict())
    fresh.load_other_parameter(model.other_parameter())
    batch = rows([1, 2, 3], [4])
    assert torch.equal(fresh.full_sort_predict(batch), model.full_sort_predict(batch))
    assert fresh.chosen == model.chosen


def test_the_loss_is_zero_with_a_gradient(make, rows):
    model = make("Counting")
    loss = model.calculate_loss(rows([1, 2]))
    loss.backward()
    assert loss.item() == 0
    assert float(model.unused.grad) == 0
