"""Search spaces: what is read, what is refused in one line, and that the shipped ones fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_mm import registry, yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.key_table import known_keys
from recbole_mm.tune.space import Dimension, check_space, plain, read_space, space_of

SHIPPED = sorted(
    file.stem for file in yaml_files.path("tune").glob("*.yaml") if file.stem != "default"
)


def test_a_space_is_read(tmp_path: Path) -> None:
    file = tmp_path / "SRIM.yaml"
    file.write_text(
        "learning_rate: {low: 1e-4, high: 1, log: true}\n"
        "n_layers: {low: 0, high: 4, step: 2}\nscore: {choices: [dot, cosine]}\n"
    )
    space = read_space(file)
    assert space["learning_rate"] == Dimension(0.0001, 1.0, None, True)
    assert space["n_layers"] == Dimension(0, 4, 2)
    assert space["score"].ends() == ("dot", "cosine")
    assert [one.written() for one in space.values()] == [
        "0.0001 to 1, log", "0 to 4, step 2", "dot, cosine",
    ]  # fmt: skip
    # The user's own folder goes before the shipped one.
    own, name = space_of(registry.resolve("SRIM"), [], tmp_path)
    assert own == space and name == str(file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("n_layers: 3", "is no range of a search"),
        ("n_layers: {low: 3, high: 1}", "low below high"),
        ("n_layers: {low: 1, hihg: 3}", "is no range of a search"),
        ("n_layers: {low: one, high: 3}", "is no range of a search"),
        ("n_layers: {low: 0, high: 3, log: true}", "above 0 with log"),
        ("n_layers: {low: 1, high: 3, step: 0.5}", "a whole step"),
        ("n_layers: {low: 1, high: 3, step: -1}", "step above 0"),
        ("n_layers: {low: 1, high: .inf}", "is no range of a search"),
        ("n_layers: {choices: []}", "a list of one value or more"),
        ("n_layers: {choices: [[1, 2]]}", "numbers, text, true, false or ~"),
        ("n_layers: {choices: [1], low: 1}", "choices alone"),
        ("n_layers: {choices: [1]\n", "not valid YAML"),
    ],
)
def test_a_wrong_space_says_where_and_what(line: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "SASRec.yaml"
    file.write_text(line)
    with pytest.raises(ConfigError) as caught:
        read_space(file)
    assert str(file) in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_or_value_that_the_model_does_not_take_is_found_before_any_trial() -> None:
    for space, words in (
        ({"n_layer": Dimension(1, 3)}, "unknown key 'n_layer'"),
        ({"n_layers": Dimension(0, 3)}, "n_layers = 0 is not accepted"),
        ({"hidden_size": Dimension(choices=(64, "wide"))}, "hidden_size = 'wide'"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_space(space, known_keys(registry.resolve("SASRec")), "SASRec", "SASRec.yaml")


@pytest.mark.parametrize("model", SHIPPED)
def test_a_shipped_space_fits_its_model(model: str) -> None:
    spec = registry.resolve(model)
    space, name = space_of(spec, [])
    assert name == f"properties/tune/{model}.yaml"
    check_space(space, known_keys(spec), model, name)


def test_other_models_get_the_keys_of_the_default_space_that_they_have() -> None:
    space, name = space_of(registry.resolve("Caser"), ["learning_rate", "dropout_prob"])
    assert name == "properties/tune/default.yaml"
    assert list(space) == ["learning_rate", "dropout_prob"]


def test_values_are_contained_and_written_without_dust() -> None:
    whole, share = Dimension(1, 3), Dimension(0.0, 0.6, 0.1)
    assert whole.contains(3) and not whole.contains(2.0) and not whole.contains(True)
    assert share.contains(0) and share.contains(0.6) and not share.contains(0.7)
    assert Dimension(choices=(False, 1)).contains(1) and not Dimension(choices=(1,)).contains(True)
    assert plain(0.1 + 0.2) == 0.3 and plain(None) is None and plain(3) == 3


def test_a_folder_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--space=nowhere is no folder"):
        space_of(registry.resolve("SRIM"), [], "nowhere")
