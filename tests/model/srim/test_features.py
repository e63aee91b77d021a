"""Item vectors made from features, against numbers worked out by hand; their use in the model."""

from __future__ import annotations

import pytest
import torch

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.srim.features import FeatureTable, prepare_features


def test_feature_table_by_hand():
    features = torch.tensor([[0.0, 0], [1, 2], [0, 0]])
    absent = torch.tensor([[0.0], [0], [1]])
    table = FeatureTable(features, absent, size=2)
    with torch.no_grad():
        table.project.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
        table.missing.copy_(torch.tensor([[5.0, 6.0]]))
    assert table().tolist() == [[0, 0], [3, -2], [5, 6]]
    assert set(table.state_dict()) == {"project.weight", "missing"}


def test_tuned_features_are_parameters_that_start_as_given():
    features = torch.randn(4, 3)
    table = FeatureTable(features, torch.zeros(4, 1), size=2, tuned=True)
    assert torch.equal(table.features, features) and "features" in table.state_dict()
    table().sum().backward()
    assert table.features.grad is not None


PRESENT = torch.tensor([False, True, True, True, False])
SEEN = torch.tensor([False, True, True, False, True])
RAW = torch.tensor([[0.0, 0], [2, 0], [4, 0], [3, 4], [0, 0]])


def test_centring_uses_training_items_only():
    result = prepare_features(RAW, PRESENT, SEEN, "center")
    assert result.tolist() == [[0, 0], [-1, 0], [1, 0], [0, 1], [0, 0]]
    changed = RAW.clone()
    changed[3] = torch.tensor([-50.0, 70.0])
    assert torch.equal(prepare_features(changed, PRESENT, SEEN, "center")[:3], result[:3])


def test_unit_and_no_scaling():
    unit = prepare_features(RAW, PRESENT, SEEN, "unit")
    torch.testing.assert_close(unit[3], torch.tensor([0.6, 0.8]))
    assert torch.equal(prepare_features(RAW, PRESENT, SEEN), RAW)


def test_a_vector_stood_in_for_a_missing_one_is_kept_unless_centred():
    filled = RAW.clone()
    filled[4] = torch.tensor([3.0, 4.0])
    unit = prepare_features(filled, PRESENT, SEEN, "unit")
    torch.testing.assert_close(unit[4], torch.tensor([0.6, 0.8]))
    assert prepare_features(filled, PRESENT, SEEN, "center")[4].tolist() == [0, 0]


def test_principal_components_keep_distances_of_training_items():
    torch.manual_seed(3)
    flat = torch.randn(40, 2) @ torch.randn(2, 6)
    flat[0] = flat[7] = 0.0
    present = torch.ones(40, dtype=torch.bool)
    present[[0, 7]] = False
    seen = torch.arange(40) < 30
    result = prepare_features(flat, present, seen, n_components=2)
    assert result.shape == (40, 2) and result.dtype == torch.float32
    assert not result[[0, 7]].any()
    torch.testing.assert_close(torch.pdist(result[8:]), torch.pdist(flat[8:]), rtol=1e-3, atol=1e-3)
    changed = flat.clone()
    changed[35] = 100.0
    again = prepare_features(changed, present, seen, n_components=2)
    torch.testing.assert_close(again[:30], result[:30])


def test_too_many_components_are_refused():
    with pytest.raises(ConfigError, match="at most 2 components"):
        prepare_features(RAW, PRESENT, SEEN, n_components=3)


def test_frozen_features_are_propagated_beforehand(build):
    assert set(build().gcn) == {"id"}
    assert set(build(content="features_tuned").gcn) == {"id", "content"}
    assert set(build(gcn="literal").gcn) == {"id", "content"}


def test_the_missing_vector_is_propagated_to_neighbours(build):
    model = build()
    before = model.eval().item_tables()["content"].detach().clone()
    with torch.no_grad():
        model.tables["content"].missing.add_(1.0)
    moved = (model.item_tables()["content"] - before).abs().sum(dim=1) > 1e-6
    # Item 6 lacks features. In one step it reaches 5, 3 and 1, in the second 2 and 7; item 4 is
    # three steps away and item 8 stands alone.
    assert moved.tolist() == [False, True, True, True, False, True, True, True, False]


def test_features_survive_the_initialisation(build, dataset):
    model = build(content="features_tuned", feature_norm="none")
    assert torch.equal(model.tables["content"].features, dataset.item_features.table("text"))


def test_missing_features_are_an_error_only_where_they_are_used(build, make_dataset, dataset):
    bare = make_dataset(dataset.train, dataset.item_num)
    with pytest.raises(FeatureError, match="SRIM needs text features of Tiny"):
        build(data=bare)
    for changes in ({"branches": "id"}, {"content": "random"}, {"preset": "official"}):
        assert build(data=bare, **changes).features is None
