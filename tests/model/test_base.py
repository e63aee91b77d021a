"""The base class: cache of item tables, prediction, features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recbole_mm.errors import FeatureError
from recbole_mm.model.base import MMSequentialRecommender


class Mean(MMSequentialRecommender):
    """Scores by the mean of the session's item vectors."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.table = nn.Parameter(torch.randn(self.n_items, 3))
        self.computed = 0
        self.widths = []

    def item_tables(self):
        self.computed += 1
        return {"candidates": self.table * 2}

    def encode(self, item_seq, item_seq_len, tables):
        self.widths.append(item_seq.shape[1])
        rows = tables["candidates"][item_seq] * (item_seq != 0).unsqueeze(2)
        return rows.sum(dim=1) / item_seq_len.unsqueeze(1)


@pytest.fixture
def dataset(make_dataset):
    return make_dataset([[1, 2, 3], [3, 4, 1, 2]], n_items=5)


@pytest.fixture
def model(settings, dataset):
    return Mean(settings(), dataset)


def test_evaluation_computes_the_tables_once(model, dataset):
    model.eval()
    with torch.no_grad():
        model.full_sort_predict(dataset.inter_feat)
        model.predict(dataset.inter_feat)
    assert model.computed == 1


def test_training_and_gradients_always_compute_afresh(model, dataset):
    model.train()
    with torch.no_grad():
        model.full_sort_predict(dataset.inter_feat)
        model.full_sort_predict(dataset.inter_feat)
    assert model.computed == 2
    model.eval()
    scores = model.predict(dataset.inter_feat)
    model.predict(dataset.inter_feat)
    assert model.computed == 4
    scores.sum().backward()
    assert model.table.grad is not None


def test_other_weights_are_never_answered_from_the_cache(model, dataset):
    model.eval()
    with torch.no_grad():
        first = model.predict(dataset.inter_feat)
        weights = {"table": model.table * 3}
        model.load_state_dict(weights)
        torch.testing.assert_close(model.predict(dataset.inter_feat), first * 9)
        model.eval()
        torch.testing.assert_close(model.predict(dataset.inter_feat), first * 9)


def test_a_training_step_between_two_evaluations_counts(model, dataset):
    rows = dataset.inter_feat
    with torch.no_grad():
        before = model.eval().full_sort_predict(rows)
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model.predict(rows).sum().backward()
    optimiser.step()
    with torch.no_grad():
        after = model.eval().full_sort_predict(rows)
        fresh = Mean.full_sort_predict(model, rows)
    assert not torch.equal(before[:, 1:], after[:, 1:]) and torch.equal(after, fresh)


def test_moving_the_model_drops_the_cache(model, dataset):
    model.eval()
    with torch.no_grad():
        model.predict(dataset.inter_feat)
        model.double()
        assert model.predict(dataset.inter_feat).dtype == torch.float64


def test_the_cache_is_no_part_of_the_state(model, dataset):
    model.eval()
    with torch.no_grad():
        model.predict(dataset.inter_feat)
    assert set(model.state_dict()) == {"table"}


def test_predict_equals_full_sort_and_padding_is_never_ranked(model, dataset):
    rows = dataset.inter_feat
    model.eval()
    with torch.no_grad():
        scores = model.full_sort_predict(rows)
        one = model.predict(rows)
        rows["item_id"] = torch.zeros_like(rows["item_id"])
        padding = model.predict(rows)
    assert scores.shape == (5, 5) and bool((scores[:, 0] == -math.inf).all())
    target = torch.tensor([2, 3, 4, 1, 2]).unsqueeze(1)
    torch.testing.assert_close(one, scores.gather(1, target).squeeze(1))
    assert bool((padding == -math.inf).all())


def test_batches_are_cut_to_their_longest_row(model, dataset):
    model.eval()
    with torch.no_grad():
        model.predict(dataset.inter_feat)
        model.predict(dataset.inter_feat[:1])
    assert model.widths == [3, 1]


def test_missing_features_name_what_is_there_and_the_command(settings, make_dataset):
    with_text = make_dataset([[1, 2]], 3, features={"text": torch.randn(3, 2)})
    model = Mean(settings(), with_text)
    table, mask = model.feature("text")
    assert table.shape == (3, 2) and mask.tolist() == [False, True, True]
    with pytest.raises(FeatureError) as caught:
        model.feature("image")
    text = str(caught.value)
    assert "Mean needs image features of Tiny, and found text." in text
    assert "encode --dataset=Tiny --modality=image" in text
    with pytest.raises(FeatureError, match="found none"):
        Mean(settings(), make_dataset([[1, 2]], 3)).feature("text")


def test_a_model_without_its_two_methods_cannot_be_made() -> None:
    class Half(MMSequentialRecommender):
        def item_tables(self):
            return {}

    with pytest.raises(TypeError, match="encode"):
        Half({}, None)
