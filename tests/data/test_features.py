"""Item vectors aligned with a data set, and their equality with RecBole's own route."""

from __future__ import annotations

import logging
import random
import sys

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset
from torch import nn

from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.itememb import write_itememb
from recbole_mm.errors import FeatureError

TOKENS = ["[PAD]", "c", "a", "missing", "b"]
VECTORS = {"a": [1.0, 10.0], "b": [2.0, 20.0], "c": [6.0, 0.0], "stranger": [100.0, 100.0]}


def write(folder, vectors, modality="text", name="d"):
    table = np.array(list(vectors.values()), dtype=np.float32)
    write_itememb(folder / f"{name}.{modality}.itememb", modality, list(vectors), table)


def load(folder, tokens=TOKENS, missing="zero", modalities=("text",)):
    folders = folder if isinstance(folder, list) else [folder]
    return ItemFeatures.load(FeatureFiles("d", folders), tokens, modalities, missing)


def test_rows_follow_tokens_not_lines(tmp_path):
    write(tmp_path, VECTORS)
    features = load(tmp_path)
    assert features.table("text").dtype == torch.float32
    assert features.table("text").tolist() == [[0, 0], [6, 0], [1, 10], [0, 0], [2, 20]]
    assert features.mask("text").tolist() == [False, True, True, False, True]
    assert features.width("text") == 2


def test_mean_is_of_the_vocabulary_only_and_leaves_padding_and_mask(tmp_path):
    write(tmp_path, VECTORS)
    features = load(tmp_path, missing="mean")
    assert features.table("text").tolist() == [[0, 0], [6, 0], [1, 10], [3, 10], [2, 20]]
    assert features.mask("text").tolist() == [False, True, True, False, True]


def test_error_policy_lists_up_to_ten(tmp_path):
    write(tmp_path, VECTORS)
    with pytest.raises(FeatureError, match=r"1 item\(s\).*: 'missing'\. Add"):
        load(tmp_path, missing="error")
    many = [*TOKENS, *(f"m{number:02d}" for number in range(12))]
    with pytest.raises(FeatureError) as caught:
        load(tmp_path, many, missing="error")
    assert "13 item(s)" in str(caught.value)
    assert "'m09' and 3 more" in str(caught.value)
    complete = [token for token in TOKENS if token != "missing"]
    assert load(tmp_path, complete, missing="error").mask("text").sum() == 3


def test_coverage_line(tmp_path, caplog):
    write(tmp_path, VECTORS)
    with caplog.at_level(logging.INFO):
        load(tmp_path)
    assert (
        "text features: 3 of 4 items have a vector of 2 numbers (75.0 %); 1 missing -> zero; "
        "1 row(s) of other items left out." in caplog.text
    )


def test_token_named_like_padding_is_not_the_padding_row(tmp_path):
    write(tmp_path, {"[PAD]": [9.0, 9.0], "a": [1.0, 2.0]})
    assert load(tmp_path).table("text")[0].tolist() == [0, 0]
    assert not load(tmp_path).mask("text")[0]


def test_hash_is_of_the_content_in_use(tmp_path):
    def hash_of(vectors, tokens=TOKENS, missing="zero"):
        write(tmp_path, vectors)
        return load(tmp_path, tokens, missing).hashes["text"]

    base = hash_of(VECTORS)
    shuffled = dict(reversed(VECTORS.items()))
    assert hash_of(shuffled) == base
    assert hash_of(VECTORS, ["[PAD]", "missing", "b", "a", "c"]) == base
    assert hash_of({**VECTORS, "stranger": [5.0, 5.0]}) == base
    assert hash_of({**VECTORS, "a": [1.0, 11.0]}) != base
    assert hash_of({**VECTORS, "a": VECTORS["b"], "b": VECTORS["a"]}) != base
    assert hash_of({**VECTORS, "missing": [0.0, 0.0]}) != base
    assert hash_of(VECTORS, missing="mean") != base
    assert hash_of(VECTORS, [*TOKENS, "more"]) != base


def test_mean_and_hash_do_not_depend_on_any_order(tmp_path):
    rng = np.random.default_rng(0)
    tokens = [f"i{number}" for number in range(40)]
    vectors = dict(zip(tokens[:30], rng.normal(size=(30, 5)).astype("f4").tolist(), strict=True))
    write(tmp_path, vectors)
    first = load(tmp_path, ["[PAD]", *tokens], "mean")
    items, names = list(vectors.items()), tokens[:]
    random.Random(1).shuffle(items)
    random.Random(2).shuffle(names)
    write(tmp_path, dict(items))
    second = load(tmp_path, ["[PAD]", *names], "mean")
    assert first.hashes == second.hashes
    rows = [names.index(token) + 1 for token in tokens]
    assert torch.equal(first.table("text")[1:], second.table("text")[rows])


def test_several_modalities_from_several_folders(tmp_path):
    (tmp_path / "x").mkdir()
    write(tmp_path, VECTORS)
    write(tmp_path / "x", {"b": [1.0, 2.0, 3.0]}, "image")
    features = load([tmp_path / "x", tmp_path], modalities=("text", "image"))
    assert (features.width("text"), features.width("image")) == (2, 3)
    assert features.mask("image").tolist() == [False, False, False, False, True]
    assert set(features.hashes) == {"text", "image"}
    with pytest.raises(FeatureError, match="'price' was not loaded, only: text, image"):
        features.table("price")


def test_errors_name_file_and_remedy(tmp_path):
    with pytest.raises(FeatureError, match="recbole-mm encode --dataset=d --modality=text`"):
        load(tmp_path)
    with pytest.raises(FeatureError, match="--modality=image --from_npy"):
        load(tmp_path, modalities=("image",))
    write(tmp_path, {"other": [1.0]})
    with pytest.raises(FeatureError, match="none of its 1 ids"):
        load(tmp_path)
    with pytest.raises(FeatureError, match="zero, mean, error"):
        load(tmp_path, missing="drop")


def test_buffers_move_with_the_module_and_stay_out_of_checkpoints(tmp_path):
    write(tmp_path, VECTORS)
    features = load(tmp_path)
    module = nn.Linear(2, 2)
    features.register_buffers(module)
    assert torch.equal(module.text_table, features.table("text"))
    assert torch.equal(module.text_mask, features.mask("text"))
    assert set(module.state_dict()) == {"weight", "bias"}
    assert len(list(module.parameters())) == 2
    moved = module.to("meta")
    assert moved.text_table.device.type == moved.text_mask.device.type == "meta"
    assert features.table("text").device.type == "cpu"


def test_stock_recbole_gives_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "d"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    items = [f"i{number}" for number in range(30)]
    rng.shuffle(items)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"u{row // 6}\t{item}\t{row}" for row, item in enumerate(items)]
    (folder / "d.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for modality, width in (("text", 8), ("image", 3)):
        # One item without a row; the rest in another order than the interactions.
        ids = sorted(items)[1:]
        write_itememb(folder / f"d.{modality}.itememb", modality, ids, rng.normal(size=(29, width)))
    config = Config(
        model="SASRec",
        dataset="d",
        config_dict={
            "data_path": str(tmp_path / "data"),
            "load_col": {
                "inter": ["user_id", "item_id", "timestamp"],
                "text.itememb": ["text_id", "text_emb"],
                "image.itememb": ["image_id", "image_emb"],
            },
            "additional_feat_suffix": ["text.itememb", "image.itememb"],
            "alias_of_item_id": ["text_id", "image_id"],
            "preload_weight": {"text_id": "text_emb", "image_id": "image_emb"},
            "train_neg_sample_args": None,
        },
    )
    dataset = create_dataset(config)
    tokens = dataset.field2id_token["item_id"]
    features = ItemFeatures.load(FeatureFiles("d", [folder]), tokens, ("text", "image"))
    for modality in ("text", "image"):
        stock = dataset.get_preload_weight(f"{modality}_id")
        ours = features.table(modality).numpy()
        assert stock.shape == ours.shape == (31, ours.shape[1])
        np.testing.assert_array_equal(stock.astype(np.float32), ours)
        assert features.mask(modality).sum() == 29
