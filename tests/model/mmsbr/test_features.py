"""What MMSBR reads of image and text: principal components, pseudo vectors, which files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.mmsbr.features import (
    FeatureSpace,
    Vectors,
    VectorTable,
    modality_files,
    prepare_content,
    ridge_twin,
)

N, WIDTH = 40, 6
SETTINGS = {
    "pca_dim": 3, "pca_scale": "rms", "pca_shared": True, "pseudo": "ridge",
    "contrast_on": "projected",
}  # fmt: skip


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
    found = FeatureSpace(vectors, fit, 3, "none")(vectors)
    expected = (vectors.table.double().numpy() - rows.mean(axis=0)) @ basis
    # A component's sign is free.
    np.testing.assert_allclose(found[1:7].abs(), np.abs(expected[1:7]), rtol=1e-4, atol=1e-5)
    assert not found[[0, 7]].any()


def test_scales_of_the_components(made):
    vectors, fit = made
    rows = vectors.present & fit
    rms = FeatureSpace(vectors, fit, 3, "rms")(vectors)[rows]
    assert rms.square().mean().item() == pytest.approx(1.0, abs=1e-5)
    assert rms.square().mean(dim=0)[0] > 1.2 > 0.8 > rms.square().mean(dim=0)[2]
    white = FeatureSpace(vectors, fit, 3, "whiten")(vectors)[rows]
    torch.testing.assert_close(white.square().mean(dim=0), torch.ones(3), atol=1e-5, rtol=0)
    plain = FeatureSpace(vectors, fit, 0, "rms")(vectors)[rows]
    torch.testing.assert_close(plain.mean(dim=0), torch.zeros(WIDTH), atol=1e-5, rtol=0)
    assert plain.square().mean().item() == pytest.approx(1.0, abs=1e-5)


def test_as_they_are(made):
    vectors, fit = made
    assert torch.equal(FeatureSpace(vectors, fit, 0, "none")(vectors), vectors.table)


def test_a_column_that_never_varies_stays_zero(made):
    vectors, fit = made
    flat = vectors.table.clone()
    flat[:, 2] = 3.0
    found = FeatureSpace(Vectors(flat, vectors.present), fit, 0, "whiten")(vectors)
    assert bool(found.isfinite().all())


def test_no_more_components_than_there_are(made):
    vectors, fit = made
    assert FeatureSpace(vectors, fit, 64, "rms")(vectors).shape == (N, WIDTH)
    few = torch.zeros(N, dtype=torch.bool)
    few[1:4] = True
    assert FeatureSpace(vectors, few, 64, "rms")(vectors).shape == (N, 3)
    few[2:4] = False
    with pytest.raises(FeatureError, match="1 item.*at least two"):
        FeatureSpace(vectors, few, 64, "rms")


def test_other_items_change_no_bit(made):
    vectors, fit = made
    other = vectors.table.clone()
    other[30:] = 100 * torch.randn(N - 30, WIDTH)
    for settings in ((3, "rms"), (3, "whiten"), (0, "rms")):
        one = FeatureSpace(vectors, fit, *settings)(vectors)
        two = FeatureSpace(Vectors(other, vectors.present), fit, *settings)(
            Vectors(other, vectors.present)
        )
        assert torch.equal(one[:30], two[:30]) and not torch.equal(one[30:], two[30:])


def test_ridge_finds_a_linear_map(made):
    source, fit = made
    weight = torch.randn(WIDTH, 4)
    target = Vectors(source.table @ weight + 1.0, source.present)
    twin = ridge_twin(source.table, source.present, target, fit)
    # Items that the map was not fitted on, too.
    torch.testing.assert_close(twin.table[1:7], target.table[1:7], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(twin.table[30:], target.table[30:], rtol=1e-2, atol=1e-2)
    assert not twin.table[[0, 7]].any() and torch.equal(twin.present, source.present)


def test_ridge_reads_training_items_only(made):
    source, fit = made
    table = torch.randn(N, 4)
    one = ridge_twin(source.table, source.present, Vectors(table, source.present), fit)
    table = torch.cat([table[:30], 50 * torch.randn(10, 4)])
    two = ridge_twin(source.table, source.present, Vectors(table, source.present), fit)
    assert torch.equal(one.table, two.table)
    nobody = torch.zeros(N, dtype=torch.bool)
    assert ridge_twin(source.table, source.present, Vectors(table, source.present), nobody) is None


def two_modalities(made):
    text, fit = made
    have = text.present.clone()
    have[[3, 35]] = False
    image = torch.randn(N, 5) * have.unsqueeze(1)
    return {"text": text, "image": Vectors(image, have)}, fit


def test_a_twin_shares_the_basis_of_its_modality(made):
    raw, fit = two_modalities(made)
    content = prepare_content(raw, {}, fit, SETTINGS)
    assert {name: v.table.shape for name, v in content.pseudo.items()} == {
        "text": (N, 3), "image": (N, 3),
    }  # fmt: skip
    # Text is predicted where there is an image, and the other way round.
    assert torch.equal(content.pseudo["text"].present, raw["image"].present)
    assert torch.equal(content.pseudo["image"].present, raw["text"].present)
    space = FeatureSpace(raw["image"], fit, 3, "rms")
    twin = ridge_twin(content.real["text"].table, raw["text"].present, raw["image"], fit)
    assert torch.equal(content.pseudo["image"].table, space(twin))
    apart = prepare_content(raw, {}, fit, SETTINGS | {"pca_shared": False}).pseudo["image"].table
    assert not torch.allclose(apart, content.pseudo["image"].table)
    assert torch.equal(apart, FeatureSpace(twin, fit, 3, "rms")(twin))


def test_twins_from_files_go_through_the_same_basis(made):
    raw, fit = two_modalities(made)
    twins = {"text": Vectors(raw["text"].table.clone(), raw["text"].present)}
    content = prepare_content(raw, twins, fit, SETTINGS | {"pseudo": "files"})
    assert list(content.pseudo) == ["text"]
    assert torch.equal(content.pseudo["text"].table, content.real["text"].table)
    narrow = {"text": Vectors(raw["text"].table[:, :4], raw["text"].present)}
    with pytest.raises(FeatureError, match="pseudo_text has 4 numbers per item and text 6"):
        prepare_content(raw, narrow, fit, SETTINGS | {"pseudo": "files"})
    apart = SETTINGS | {"pseudo": "files", "pca_shared": False, "pca_dim": 0}
    assert prepare_content(raw, narrow, fit, apart).pseudo["text"].table.shape == (N, 4)
    with pytest.raises(ConfigError, match="contrast_on=tables compares text vectors of 6"):
        prepare_content(raw, narrow, fit, apart | {"contrast_on": "tables"})


def test_one_modality_has_no_twin(made):
    text, fit = made
    assert prepare_content({"text": text}, {}, fit, SETTINGS).pseudo == {}
    raw, fit = two_modalities(made)
    assert prepare_content(raw, {}, fit, SETTINGS | {"pseudo": "none"}).pseudo == {}


def test_vectors_are_trained_or_left_out_of_checkpoints():
    table = torch.randn(4, 2)
    frozen, trained = VectorTable(table, False), VectorTable(table, True)
    assert not list(frozen.parameters()) and not frozen.state_dict()
    assert list(trained.state_dict()) == ["vectors"]
    assert torch.equal(frozen(torch.tensor([2, 1])), table[[2, 1]])
    with torch.no_grad():
        trained.vectors.zero_()
    assert table.any()


ITEMS = "item_id:token\ttitle:token_seq\ni1\tone\n"


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()

    def make(item=ITEMS, files=(), **keys):
        (folder / "shop.item").write_text(item)
        for name in files:
            text = f"{name}_id:token\t{name}_emb:float_seq\ni1\t1 2\n"
            (folder / f"shop.{name}.itememb").write_text(text)
        base = {"data_path": str(tmp_path), "use_gpu": False}
        return MMConfig("MMSBR", "shop", (), base | keys)

    return make


@pytest.mark.parametrize(
    ("files", "keys", "expected"),
    [
        ((), {}, ("text",)),
        ((), {"encode_on_first_use": False}, ()),
        ((), {"use_text": False}, ()),
        (("image",), {}, ("text", "image")),
        (("image",), {"use_image": False}, ("text",)),
        ((), {"use_image": True}, ("text", "image")),
        (("text", "image"), {"pseudo": "files"}, ("text", "image", "pseudo_text", "pseudo_image")),
        (("text",), {"pseudo": "files", "w_con": 0.0}, ("text",)),
    ],
)
def test_files_that_are_read(config, files, keys, expected):
    assert modality_files(config(files=files, **keys)) == expected


def test_an_item_file_without_texts_gives_none(config):
    assert modality_files(config("item_id:token\tprice:float\ni1\t3\n")) == ()
