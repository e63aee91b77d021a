"""What MMSBR reads of image and text: principal components, pseudo vectors, their tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mm.errors import FeatureError
from recbole_mm.model.mmsbr.features import ProjectedVectors, prepare_content, ridge_twin
from recbole_mm.model.spaces import FeatureSpace, Vectors

N, WIDTH = 40, 6


@pytest.fixture
def made():
    torch.manual_seed(0)
    present = torch.ones(N, dtype=torch.bool)
    present[[0, 7]] = False
    table = torch.randn(N, WIDTH) * torch.arange(1, WIDTH + 1) + 5.0
    fit = torch.zeros(N, dtype=torch.bool)
    fit[1:30] = True
    return Vectors(table * present.unsqueeze(1), present), fit


def test_components_equal_a_singular_value_decomposition(made):
    vectors, fit = made
    rows = vectors.table[vectors.present & fit].double().numpy()
    centred = rows - rows.mean(axis=0)
    basis = np.linalg.svd(centred)[2][:3].T
    expected = (vectors.table.double().numpy() - rows.mean(axis=0)) @ basis
    expected /= np.sqrt(np.square(centred @ basis).mean())
    found = FeatureSpace(vectors, fit, 3)(vectors).table
    # A component's sign is free.
    np.testing.assert_allclose(found[1:7].abs(), np.abs(expected[1:7]), rtol=1e-4, atol=1e-5)
    assert not found[[0, 7]].any()


def test_one_number_scales_all_components(made):
    vectors, fit = made
    rows = vectors.present & fit
    scaled = FeatureSpace(vectors, fit, 3)(vectors).table[rows]
    assert scaled.square().mean().item() == pytest.approx(1.0, abs=1e-5)
    assert scaled.square().mean(dim=0)[0] > 1.2 > 0.8 > scaled.square().mean(dim=0)[2]
    plain = FeatureSpace(vectors, fit, 0)(vectors).table[rows]
    torch.testing.assert_close(plain.mean(dim=0), torch.zeros(WIDTH), atol=1e-5, rtol=0)
    assert plain.square().mean().item() == pytest.approx(1.0, abs=1e-5)


def test_vectors_that_never_vary_stay_zero(made):
    vectors, fit = made
    flat = Vectors(torch.full((N, WIDTH), 3.0), vectors.present)
    assert not FeatureSpace(flat, fit, 0)(flat).table.any()


def test_no_more_components_than_there_are(made):
    vectors, fit = made
    assert FeatureSpace(vectors, fit, 64)(vectors).table.shape == (N, WIDTH)
    few = torch.zeros(N, dtype=torch.bool)
    few[1:4] = True
    assert FeatureSpace(vectors, few, 64)(vectors).table.shape == (N, 3)
    few[2:4] = False
    two = few.clone()
    two[torch.nonzero(~two & vectors.present)[0]] = True
    assert int((two & vectors.present).sum()) == 2
    assert FeatureSpace(vectors, two, 64)(vectors).table.shape == (N, 2)
    with pytest.raises(FeatureError, match="1 item.*at least two"):
        FeatureSpace(vectors, few, 64)


def test_other_items_change_no_bit(made):
    vectors, fit = made
    other = vectors.table.clone()
    other[30:] = 100 * torch.randn(N - 30, WIDTH)
    changed = Vectors(other, vectors.present)
    for components in (3, 0):
        one = FeatureSpace(vectors, fit, components)(vectors).table
        two = FeatureSpace(changed, fit, components)(changed).table
        assert torch.equal(one[:30], two[:30]) and not torch.equal(one[30:], two[30:])


def test_ridge_finds_a_linear_map(made):
    source, fit = made
    weight = torch.randn(WIDTH, 4)
    target = Vectors(source.table @ weight + 1.0, source.present)
    twin = ridge_twin(source, target, fit)
    # Items that the map was not fitted on, too.
    torch.testing.assert_close(twin.table[1:7], target.table[1:7], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(twin.table[30:], target.table[30:], rtol=1e-2, atol=1e-2)
    assert not twin.table[[0, 7]].any() and torch.equal(twin.present, source.present)


def test_ridge_reads_training_items_only(made):
    source, fit = made
    table = torch.randn(N, 4)
    one = ridge_twin(source, Vectors(table, source.present), fit)
    table = torch.cat([table[:30], 50 * torch.randn(10, 4)])
    two = ridge_twin(source, Vectors(table, source.present), fit)
    assert torch.equal(one.table, two.table)
    nobody = torch.zeros(N, dtype=torch.bool)
    assert ridge_twin(source, Vectors(table, source.present), nobody) is None


def two_modalities(made):
    text, fit = made
    have = text.present.clone()
    have[[3, 35]] = False
    image = torch.randn(N, 5) * have.unsqueeze(1)
    return {"text": text, "image": Vectors(image, have)}, fit


def test_a_twin_shares_the_basis_of_its_modality(made):
    raw, fit = two_modalities(made)
    content = prepare_content(raw, None, fit, 3)
    assert {name: v.table.shape for name, v in content.pseudo.items()} == {
        "text": (N, 3), "image": (N, 3),
    }  # fmt: skip
    # Text is predicted where there is an image, and the other way round.
    assert torch.equal(content.pseudo["text"].present, raw["image"].present)
    assert torch.equal(content.pseudo["image"].present, raw["text"].present)
    space = FeatureSpace(raw["image"], fit, 3)
    twin = ridge_twin(content.real["text"], raw["image"], fit)
    assert torch.equal(content.pseudo["image"].table, space(twin).table)


def test_twins_from_files_go_through_the_same_basis(made):
    raw, fit = two_modalities(made)
    twins = {"text": Vectors(raw["text"].table.clone(), raw["text"].present)}
    content = prepare_content(raw, twins, fit, 3)
    assert list(content.pseudo) == ["text"]
    assert torch.equal(content.pseudo["text"].table, content.real["text"].table)
    narrow = {"text": Vectors(raw["text"].table[:, :4], raw["text"].present)}
    with pytest.raises(FeatureError, match="pseudo_text has 4 numbers per item and text 6"):
        prepare_content(raw, narrow, fit, 3)


def test_one_modality_has_no_twin(made):
    text, fit = made
    assert prepare_content({"text": text}, None, fit, 3).pseudo == {}
    raw, fit = two_modalities(made)
    assert prepare_content(raw, {}, fit, 3).pseudo == {}


def test_checkpoints_hold_the_projection_alone():
    table, rows = torch.randn(4, 3), torch.tensor([2, 1])
    model = ProjectedVectors(table, 2)
    assert model.width == 2 and list(model.state_dict()) == ["map.weight"]
    torch.testing.assert_close(model(rows), table[rows] @ model.map.weight.T)
