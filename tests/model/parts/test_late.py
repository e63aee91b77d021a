"""The late sum by hand, what is fitted, and where it is kept."""

from __future__ import annotations

import math

import pytest
import torch
from recbole.model.general_recommender.bpr import BPR

from recbole_mm.errors import ConfigError
from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.model import Counting
from recbole_mm.model.counting.scores import ndcg, own_items_last, z_scores
from recbole_mm.model.parts.counted import Variant
from recbole_mm.model.parts.late import WEIGHTS, Batch, Fit, Weights, summed
from recbole_mm.model.parts.late_model import with_late_parts

ALL = ("transitions", "lexical", "own_items")
N_ITEMS = 6
# After 1 comes 3, after 2 comes 4 and so on: nothing of this is in the sessions.
RIGHT = torch.zeros(N_ITEMS, N_ITEMS)
for last, following in ((1, 5), (2, 5), (3, 5), (4, 5)):
    RIGHT[last, following] = 1.0


def test_before_it_is_fitted_the_score_is_the_networks_own(make, rows):
    model = make(*ALL, given=torch.randn(N_ITEMS, N_ITEMS))
    batch = rows([1, 2], [3])
    assert torch.equal(model.full_sort_predict(batch), model.given[torch.tensor([2, 3])])
    assert model.score_parts(batch) == {} and model.late == {}
    assert model.diagnostics(None, None) == {}


def test_the_sum_by_hand(make, rows):
    """z(network) + 2 z(transitions) + 0.5 z(lexical), item by item; the history comes last."""
    model = make(*ALL, given=torch.arange(36.0).view(N_ITEMS, N_ITEMS))
    batch = rows([3, 2])
    variants = {"transitions": Variant(0.0, "markov"), "lexical": Variant(0.0)}
    weights = Weights({"network": 1.0}, {"transitions": 2.0, "lexical": 0.5}, variants, True)
    model.late = weights.plain()
    assert Weights.of(model.late) == weights
    history = History.of(batch["item_id_list"], batch["item_length"], N_ITEMS)
    network = torch.tensor([-1.414214, -0.707107, 0.0, 0.707107, 1.414214])
    transitions, lexical = (
        part.z(history, variants[part.name], "cpu")[0, 1:] for part in model.late_counted
    )
    expected = network + 2 * transitions + 0.5 * lexical
    found = model.full_sort_predict(batch)[0]
    assert float(found[0]) == -math.inf
    kept = [0, 3, 4]  # items 1, 4, 5; 2 and 3 are the history
    torch.testing.assert_close(found[1:][kept], expected[kept])
    assert float(found[[2, 3]].max()) < float(found[1:][kept].min())
    parts = model.score_parts(batch)
    assert list(parts) == ["network", "transitions", "lexical"]
    assert [float(part[0, 0]) for part in parts.values()] == [-math.inf] * 3
    torch.testing.assert_close(sum(part[0, 1:] for part in parts.values()), expected)
    item = batch["item_id"].unsqueeze(1)
    torch.testing.assert_close(model.predict(batch), found.unsqueeze(0).gather(1, item)[:, 0])


def test_a_network_that_knows_is_left_alone(make, rows, loader):
    model = make(*ALL, given=RIGHT)
    valid = rows([1], [2], [3], [4], target=[5, 5, 5, 5])
    model.fit_late(loader(valid))
    numbers = Weights.of(model.late).numbers()
    assert numbers["weight/network"] == 1.0
    assert float(ndcg(model.full_sort_predict(valid), valid["item_id"]).mean()) == 1.0


def test_counts_outweigh_a_network_that_is_wrong(make, rows, loader):
    """After 3 comes 4 and after 4 comes 2, as in the sessions; the network says 5."""
    model = make("transitions", given=RIGHT)
    valid = rows([3], [4], target=[4, 2])
    model.fit_late(loader(valid))
    assert Weights.of(model.late).parts["transitions"] > 1.0
    assert float(ndcg(model.full_sort_predict(valid), valid["item_id"]).mean()) == 1.0


@pytest.mark.parametrize(("target", "lifted"), [(5, True), (4, False)])
def test_unseen_items_are_lifted_where_validation_says_so(make, rows, loader, target, lifted):
    """No session holds item 5, and the network ranks it last, item 4 second to last."""
    model = make("unseen_items", given=-torch.arange(36.0).view(N_ITEMS, N_ITEMS))
    valid = rows([1], [2], target=[target] * 2)
    model.fit_late(loader(valid))
    weights = model.late_weights()
    assert (weights.parts["unseen_items"] > 0) == lifted
    # Its decay means nothing and is not told.
    assert "unseen_items/decay" not in weights.numbers()
    ranked_first = model.full_sort_predict(valid)[:, 1:].argmax(dim=1) + 1
    assert (ranked_first == 5).all() == lifted


@pytest.mark.parametrize(("target", "last"), [(1, False), (4, True)])
def test_own_items_come_last_where_validation_says_so(make, rows, loader, target, last):
    """The network ranks the last item first, then item 4."""
    given = torch.eye(N_ITEMS) * 2
    given[:, 4] = 1.0
    model = make("own_items", given=given)
    model.fit_late(loader(rows([1], [1], target=[target, target])))
    assert Weights.of(model.late).own_last is last


def test_without_own_items_they_stay(make, rows, loader):
    model = make("transitions", given=RIGHT)
    model.fit_late(loader(rows([1], target=[4])))
    assert Weights.of(model.late).own_last is False


def test_the_weights_are_those_of_a_search_through_all(make, rows, loader):
    """One part of one variant: no other weight of the grid is better."""
    torch.manual_seed(5)
    model = make("transitions", given=torch.randn(N_ITEMS, N_ITEMS))
    part = model.late_counted[0]
    part.variants = part.variants[:1]
    valid = rows([1], [2], [3], [4], [1, 2], [3, 4], target=[2, 1, 4, 2, 3, 2])
    model.fit_late(loader(valid))
    history = History.of(valid["item_id_list"], valid["item_length"], N_ITEMS)
    network = z_scores(model.given[torch.tensor([1, 2, 3, 4, 2, 4])].detach())
    counted = part.z(history, part.variants[0], "cpu")
    gains = {
        weight: float(ndcg(network + weight * counted, valid["item_id"]).sum())
        for weight in WEIGHTS
    }
    chosen = Weights.of(model.late).parts["transitions"]
    assert gains[chosen] == max(gains.values())


@pytest.mark.parametrize(("right", "count"), [(True, 1), (False, 2)])
def test_rounds_end_with_the_first_that_changes_nothing(make, rows, monkeypatch, right, count):
    """A network that is right keeps the first weights; else one round more says that all stays."""
    torch.manual_seed(0)
    model = make("transitions", given=RIGHT if right else torch.randn(N_ITEMS, N_ITEMS))
    target = [5, 5, 5, 5, 5, 5] if right else [2, 1, 4, 2, 3, 2]
    batch = model._late_batch(rows([1], [2], [3], [4], [1, 2], [3, 4], target=target))
    seen = []
    monkeypatch.setattr(Fit, "_choose_own", lambda fit, found: seen.append(found) or found)
    found = Fit([batch], model.late_counted, own_items=False).weights()
    assert seen == [found] * count
    assert (found.parts["transitions"] == 0.0) is right


def test_several_networks_get_weights_of_their_own(rows):
    """The second network is right, the first is wrong by less than twice as much."""
    valid = rows([1], [2], target=[3, 4])
    history = History.of(valid["item_id_list"], valid["item_length"], N_ITEMS)
    wrong, right = torch.zeros(2, N_ITEMS), torch.zeros(2, N_ITEMS)
    wrong[:, 5] = 1.0
    right[0, 3] = right[1, 4] = 0.9
    networks = {"wrong": z_scores(wrong), "right": 0.5 * z_scores(right)}
    batch = Batch(history, valid["item_id_list"], valid["item_id"], networks)
    weights = Fit([batch], [], own_items=False).weights()
    assert weights.networks["wrong"] == 1.0 and weights.networks["right"] > 2.0
    assert float(ndcg(summed(batch, [], weights), batch.target).mean()) == 1.0
    struck = own_items_last(summed(batch, [], weights), batch.item_seq)
    masked = Fit([batch], [], masked=True).weights()
    assert masked.own_last and torch.equal(summed(batch, [], masked).argsort(), struck.argsort())


@pytest.mark.parametrize("model_class", [Counting, BPR])
def test_models_that_cannot_take_parts_are_refused(model_class):
    with pytest.raises(ConfigError, match=rf"^score_parts: {model_class.__name__} "):
        with_late_parts(model_class, ALL)
    assert with_late_parts(model_class, []) is model_class
