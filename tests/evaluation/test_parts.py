"""Metrics of parts and variants of a score, on rows whose ranks can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_mm.errors import TrainingError
from recbole_mm.evaluation.parts import part_metrics, variant_metrics

N = 5  # items 1 to 4
# Targets of rows 0 to 2: ranks in "up" are 4, 1 and 3, in "down" 1, 4 and 2.
TARGETS = torch.tensor([1, 4, 2])
# What the rows were given; the target of row 2 is among it.
HISTORIES = torch.tensor([[3, 4, 0], [3, 0, 0], [2, 1, 0]])
UP = torch.tensor([9.0, 1.0, 2.0, 3.0, 4.0])
ROWS = {"item_id": TARGETS, "item_id_list": HISTORIES, "item_length": torch.tensor([2, 1, 2])}


class Loader:
    """Three rows, two of them at once."""

    config = {
        "history": "keep", "device": "cpu", "eval_batch_size": 2, "ITEM_ID_FIELD": "item_id",
        "LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "item_length",
    }  # fmt: skip

    class dataset:  # noqa: N801
        inter_feat, item_num = Interaction(ROWS), N

        def __len__(self):
            return len(TARGETS)

        def __getitem__(self, rows):
            return self.inter_feat[rows]

    dataset = dataset()

    def transform(self, dataset, rows):
        return rows


class Model(torch.nn.Module):
    device = torch.device("cpu")
    n_items = N

    def tables(self, interaction):
        assert not self.training and not torch.is_grad_enabled()
        up = UP.repeat(len(interaction), 1)
        return {"up": up, "down": -up}

    def score_parts(self, interaction):
        return self.tables(interaction)

    def full_sort_predict(self, interaction):
        return (2 * self.tables(interaction)["down"]).flatten()

    def score_variants(self, interaction):
        parts = self.tables(interaction)
        yield "weight=1", parts["up"]
        yield "weight=0.5", parts["up"] / 2 + parts["down"] / 2


def cross_entropy(scores, target):
    return math.log(sum(math.exp(s) for s in scores)) - scores[target - 1]


def test_parts_by_hand():
    found = part_metrics(Model(), Loader(), [1, 3], ["Hit", "MRR"])
    assert list(found) == ["whole", "up", "down"]
    up = {name: value for name, value in found["up"].items() if name != "ce"}
    assert up == pytest.approx({"hit@1": 1 / 3, "hit@3": 2 / 3, "mrr@1": 1 / 3, "mrr@3": 4 / 9})
    assert found["down"]["mrr@3"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    # The padding's 9.0 takes no part in the softmax.
    values = [1.0, 2.0, 3.0, 4.0]
    expected = sum(cross_entropy(values, t) for t in (1, 4, 2)) / 3
    assert found["up"]["ce"] == pytest.approx(expected, abs=1e-6)
    doubled = [-2.0 * value for value in values]
    expected = sum(cross_entropy(doubled, t) for t in (1, 4, 2)) / 3
    assert found["whole"]["ce"] == pytest.approx(expected, abs=1e-6)
    assert found["whole"]["mrr@3"] == found["down"]["mrr@3"]


def test_variants_by_hand():
    found = variant_metrics(Model(), Loader(), [3], ["MRR"])
    assert list(found) == ["weight=1", "weight=0.5"]
    assert found["weight=1"]["mrr@3"] == pytest.approx(4 / 9)
    # All four items score 0: each target shares the mean position, 1 + 3/2 rounded up.
    assert found["weight=0.5"] == pytest.approx({"mrr@3": 1 / 3, "ce": math.log(4)})


class MaskedLoader(Loader):
    config = {**Loader.config, "history": "mask"}


def test_parts_and_variants_with_the_history_struck_out():
    found = part_metrics(Model(), MaskedLoader(), [1, 4], ["Hit", "MRR"])
    # Up: item 1 behind 2; item 4 first of 1, 2, 4; item 2 last of all four, as struck out.
    up = {name: value for name, value in found["up"].items() if name != "ce"}
    thirds = {"hit@1": 1 / 3, "hit@4": 1, "mrr@1": 1 / 3, "mrr@4": (1 / 2 + 1 + 1 / 4) / 3}
    assert up == pytest.approx(thirds)
    assert found["down"]["mrr@4"] == pytest.approx((1 + 1 / 3 + 1 / 4) / 3)
    # A target that is no candidate has no cross-entropy.
    expected = (cross_entropy([1.0, 2.0], 1) + cross_entropy([1.0, 2.0, 4.0], 3)) / 2
    assert found["up"]["ce"] == pytest.approx(expected, abs=1e-6)
    # Made from the same tables after the first was ranked: they must be untouched.
    found = variant_metrics(Model(), MaskedLoader(), [4], ["MRR"])
    assert found["weight=1"]["mrr@4"] == pytest.approx(thirds["mrr@4"])
    # Equal scores: second of two, second of three (1 + 2/2), and last of four.
    assert found["weight=0.5"]["mrr@4"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    assert found["weight=0.5"]["ce"] == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_models_without_hooks_or_parts_have_none():
    class Plain(torch.nn.Module):
        pass

    class NoParts(Model):
        def score_parts(self, interaction):
            return {}

        def full_sort_predict(self, interaction):
            raise AssertionError("scored for nothing")

        def score_variants(self, interaction):
            return iter(())

    for model in (Plain(), NoParts()):
        assert part_metrics(model, Loader(), [1], ["Hit"]) == {}
        assert variant_metrics(model, Loader(), [1], ["Hit"]) == {}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_cannot_be_ranked_are_refused(bad):
    class Wrong(Model):
        def score_parts(self, interaction):
            return {"up": torch.full((len(interaction), N), bad)}

        def full_sort_predict(self, interaction):
            return torch.zeros(len(interaction), N)

    with pytest.raises(TrainingError, match="Wrong: the part 'up' .* NaN or infinite"):
        part_metrics(Wrong(), Loader(), [1], ["Hit"])


def test_only_the_padding_column_may_hold_anything():
    class Padded(Model):
        def tables(self, interaction):
            tables = super().tables(interaction)
            for scores in tables.values():
                scores[:, 0] = torch.nan
            return tables

    found = part_metrics(Padded(), Loader(), [1, 3], ["Hit", "MRR"])
    assert found == part_metrics(Model(), Loader(), [1, 3], ["Hit", "MRR"])


def test_another_shape_is_refused():
    class Short(Model):
        def score_parts(self, interaction):
            return {"up": UP[1:].repeat(len(interaction), 1)}

    with pytest.raises(TrainingError, match=r"shape \(2, 4\), expected \(2, 5\)"):
        part_metrics(Short(), Loader(), [1], ["Hit"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("item", [1, N - 1])
def test_every_item_counts_in_the_check_and_padding_does_not(value, item):
    class Odd(Model):
        def __init__(self, place):
            super().__init__()
            self.place = place

        def tables(self, interaction):
            found = super().tables(interaction)
            found["up"][-1, self.place] = value
            found["down"] = torch.zeros_like(found["up"])
            return found

    with pytest.raises(TrainingError, match="the part 'up' .* NaN or infinite"):
        part_metrics(Odd(item), Loader(), [1], ["Hit"])
    assert part_metrics(Odd(0), Loader(), [1], ["Hit"])["up"]["hit@1"] == pytest.approx(1 / 3)
