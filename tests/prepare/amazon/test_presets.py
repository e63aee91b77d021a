"""Options of ``prepare amazon``, the papers' presets, and where the raw files come from."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.amazon.presets import PRESETS, AmazonOptions
from recbole_mm.prepare.amazon.published import address
from recbole_mm.prepare.cli import add_arguments
from recbole_mm.prepare.microlens import TITLES


def test_each_preset_fits_itself_and_names_its_files(tmp_path):
    for name, preset in PRESETS.items():
        assert AmazonOptions.from_settings({"preset": name}) == preset
        with pytest.raises(DataError) as caught:
            replace(preset, raw=str(tmp_path)).files()
        said = str(caught.value)
        assert preset.reviews in said and preset.meta in said and str(preset.year) in said
        assert f"prepare amazon --preset={name} --raw={tmp_path}" in said
        where = {2014: "snap.stanford.edu", 2018: "amazon_v2/", 2023: "amazon_2023/raw/"}
        assert said.count("https://" if preset.year != 2014 else "http://") >= 2
        assert said.count(where[preset.year]) >= 2


def test_addresses_of_the_2018_files():
    said = PRESETS["Grocery"]._how_to_get(
        ["Grocery_and_Gourmet_Food_5.json.gz", "meta_Grocery_and_Gourmet_Food.json.gz"]
    )
    assert "/categoryFilesSmall/Grocery_and_Gourmet_Food_5.json.gz" in said
    assert "/metaFiles2/meta_Grocery_and_Gourmet_Food.json.gz" in said
    assert "/categoryFiles/Prime_Pantry.json.gz" in address(2018, "Prime_Pantry.json.gz")


def test_addresses_of_the_2023_files():
    base = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/"
    for name, where in (
        ("Video_Games.jsonl.gz", "raw/review_categories/Video_Games.jsonl.gz"),
        ("meta_Video_Games.jsonl.gz", "raw/meta_categories/meta_Video_Games.jsonl.gz"),
        ("Video_Games.csv.gz", "benchmark/5core/rating_only/Video_Games.csv.gz"),
    ):
        assert address(2023, name) == base + where


def test_the_help_names_every_preset():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    said = parser.format_help().replace("\n", " ")
    assert not [name for name in [*PRESETS, *TITLES] if f" {name}" not in said]


def test_unpacked_files_are_found_too(tmp_path):
    options = replace(PRESETS["Baby"], raw=str(tmp_path))
    for name in (options.reviews, options.meta):
        (tmp_path / name.removesuffix(".gz")).write_text("x")
    assert options.files() == (
        tmp_path / "reviews_Baby_5.json",
        tmp_path / "meta_Baby.json",
    )


def test_options_change_a_preset():
    made = AmazonOptions.from_settings(
        {"preset": "Baby", "session_gap": 0, "core": 3, "require": "title, price"}
    )
    assert (made.sequences, made.session_gap, made.core) == (False, 0.0, 3)
    assert made.require == ("title", "price") and made.year == 2014
    made = AmazonOptions.from_settings({"preset": "Sports", "sequences": True, "min_item": 1})
    assert (made.sequences, made.session_gap, made.min_item) == (True, None, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --preset"),
        ({"preset": "Books"}, "--preset is Books, expected one of Cellphones"),
        ({"reviews": "r", "sequences": True}, "--dataset is ''"),
        ({"reviews": "r", "dataset": "../x", "sequences": True}, "--dataset"),
        ({"reviews": "r", "dataset": "x"}, "either --sequences"),
        ({"preset": "Baby", "sequences": True, "session_gap": 1}, "either --sequences"),
        ({"preset": "Baby", "session_gap": -1}, "--session_gap is -1"),
        ({"preset": "Baby", "year": 2020}, "--year is 2020"),
        ({"preset": "Baby", "repeats": "last"}, "--repeats is last"),
        ({"preset": "Baby", "core": 0}, "--core is 0"),
        ({"preset": "Baby", "min_session": 1}, "--min_session 1"),
        ({"preset": "Baby", "require": "colour"}, "--require names colour"),
        ({"preset": "Baby", "text_cols": "title,price"}, "--text_cols names price"),
        (
            {"reviews": "r", "dataset": "x", "sequences": True, "require": "row"},
            "--require needs --meta",
        ),
    ],
)
def test_wrong_options_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        AmazonOptions.from_settings(settings)
