"""The table of keys: it covers every shipped key, and its checks are exact at the limits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_mm import key_table, keys, registry, stock, yaml_files
from recbole_mm.errors import ConfigError

# Recipes hold options of `encode`, no keys of a run; tests/encode/test_recipe.py reads them.
# Recipes, search spaces and papers have forms of their own, and tests of their own.
OTHERS = ("recipe", "tune", "paper")
SHIPPED = sorted(f for f in yaml_files.path().rglob("*.yaml") if f.parent.name not in OTHERS)


OURS = (
    "SRIM", "AlterRec", "NFRec", "MMSBR", "MDSRec",
    "LLM2SASRec", "LLM2BERT4Rec", "CoHHN", "MISSRec", "DIMO", "UniSRec",
    "SPop", "SessionRules", "SessionKNN", "ContentKNN", "Counting",
)  # fmt: skip


def rows(*names: str) -> dict[str, keys.Key]:
    return {key: row for name in names for key, row in key_table.section(name).items()}


def table_of(file: Path) -> dict[str, keys.Key]:
    """Return the keys that may stand in one of our YAML files."""
    if file.parent.name == "dataset":
        return rows("shared", "overall")
    if file.parent.name != "model":
        return rows("overall")
    model, *preset = file.name.removesuffix(".yaml").split(".")
    spec = registry.resolve(model)
    return {**rows("overall"), **key_table.keys_of_settings(spec, *preset)}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_key_is_known_and_its_value_accepted(file: Path) -> None:
    if file.name == "keys.yaml":
        return
    table = table_of(file)
    for key, value in yaml_files.load_yaml(file).items():
        assert key in table, f"{key} of {file.name}"
        table[key].check(value, file.name)


@pytest.mark.parametrize("model", OURS)
def test_defaults_in_yaml_and_settings_are_equal(model: str) -> None:
    spec = registry.resolve(model)
    written = yaml_files.load_yaml(yaml_files.path("model", f"{model}.yaml"))
    settings = spec.load_settings()
    assert settings is not None
    defaults = settings()
    for key in settings.keys():
        default = getattr(defaults, key)
        assert written[key] == (list(default) if isinstance(default, tuple) else default), key
    assert set(written) <= set(settings.keys()) | set(rows("overall"))


@pytest.mark.parametrize("model", OURS)
def test_a_model_has_the_settings_of_the_registry(model: str) -> None:
    spec = registry.resolve(model)
    for preset in ("sound", *spec.variants):
        found: Any = spec.load(preset)
        assert found.Settings is spec.load_settings(preset)


def test_every_key_has_a_help_text_and_a_type() -> None:
    tables = [rows("overall", "shared")]
    tables += [key_table.keys_of_settings(registry.resolve(model)) for model in OURS]
    for key, row in ((key, row) for table in tables for key, row in table.items()):
        assert row.help.endswith("."), key
        assert row.types, key


def test_a_removed_key_says_what_became_of_it() -> None:
    for model, gone in yaml_files.load_yaml(yaml_files.path("keys.yaml"))["removed"].items():
        known = key_table.keys_of_settings(registry.resolve(model))
        for key, word in gone.items():
            assert key not in known
            error = key_table.unknown_key(key, "command line", known, model)
            assert str(error) == f"command line: {model} has no key '{key}' any more: {word}"


def test_a_row_with_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'epochs' holds unknown \['mn'\]"):
        key_table.from_table("epochs", {"type": "int", "mn": 1})
    with pytest.raises(ConfigError, match=r"unknown \['integer'\]"):
        key_table.from_table("epochs", {"type": "integer"})


@pytest.mark.parametrize(
    ("row", "good", "bad"),
    [
        ({"type": "int"}, [0, -5], [True, 1.0, "1", None, [1]]),
        ({"type": "float"}, [0, 1.5], [True, "1", None, float("nan")]),
        ({"type": "bool"}, [True, False], [0, 1, "true", None]),
        ({"type": "str"}, ["", "x"], [1, True, None]),
        ({"type": "int", "min": 1, "max": 3}, [1, 3], [0, 4]),
        ({"type": "float", "above": 0, "below": 1}, [0.001, 0.999], [0, 1, 0.0, 1.0]),
        ({"type": "str", "choices": ["a", "b"]}, ["a"], ["A", "c"]),
        ({"type": "int", "choices": [1, -1]}, [1, -1], [0, True]),
        ({"type": "int", None: True}, [None, "None", 1], ["none", "x"]),
        (
            {"type": "list", "items": "int", "length": 2, "min": 1},
            [[1, 2]],
            [[1], [0, 1], [1, "2"]],
        ),
        ({"type": ["list", "int"], "items": "int", "min": 1}, [5, [5]], [0, [0], "5"]),
        ({"type": "dict"}, [{}, {"a": 1}], [[], "a"]),
        ({}, [None, 1, "x", [1]], []),
    ],
)
def test_limits(row: dict, good: list, bad: list) -> None:
    key = key_table.from_table("x", row)
    for value in good:
        key.check(value, "here")
    for value in bad:
        with pytest.raises(ConfigError, match="here: x = "):
            key.check(value, "here")


def test_values_are_made_equal_so_that_equal_settings_hash_alike() -> None:
    assert type(key_table.from_table("x", {"type": "float"}).check(1, "")) is float
    ratio = key_table.from_table("x", {"type": "list", "items": ["int", "float"]})
    assert [type(v) for v in ratio.check((7, 2.5), "")] == [int, float]
    metrics = key_table.from_table("x", {"type": "list", "items": "str", "choices": ["Hit"]})
    with pytest.raises(ConfigError):
        metrics.check(["hit"], "")
    loose = key_table.from_table("x", {"type": "list", "choices": ["Hit"], "ignore_case": True})
    assert loose.check(["hit"], "") == ["Hit"]


def test_types_are_inferred_from_values_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "n: 2            # (int) How many.\n"
        "ratio: 1        # (float) A share.\n"
        "plain: 3\n"
        "rate: 0.5\n"
        "reg: [0.0, 1]   # (list of float) Two weights.\n"
        "free: ~\n"
        "name: None      # (str) A name.\n"
    )
    table = key_table.inferred(file)
    assert table["n"].types == ("int",)
    assert table["ratio"].types == ("int", "float")
    assert table["plain"].types == ("int",)
    assert table["rate"].types == ("float",)
    assert table["reg"].types == ("list",)
    assert table["free"].types == ()
    assert table["name"].check("None", "") == "None"
    assert table["n"].help == "How many."


def test_values_of_a_program_become_plain() -> None:
    value = {"a": (np.int64(1), np.float32(0.5)), "b": Path("x/y"), "c": None}
    assert keys.plain(value, "k") == {"a": [1, 0.5], "b": str(Path("x/y")), "c": None}
    assert type(keys.plain(np.int64(1), "k")) is int
    with pytest.raises(ConfigError, match="k: expected a plain value"):
        keys.plain({"a": object()}, "k")


def test_stock_keys_are_known_even_where_recbole_leaves_them_out_of_its_yaml() -> None:
    known = key_table.known_keys(registry.resolve("FEARec"))
    assert {"tau", "sim", "contrast"} <= set(known)
    assert "device" not in key_table.known_keys(registry.resolve("GCSAN"))
    assert "tau" not in key_table.known_keys(registry.resolve("SASRec"))


@pytest.mark.parametrize(
    ("key", "words"),
    [("nproc", "torchrun --nproc_per_node=2"), ("world_size", "gpu_id chooses the device")],
)
def test_a_key_of_recbole_that_means_nothing_here_says_what_to_use(key, words):
    error = key_table.unknown_key(key, "command line", ["seed"], "SASRec")
    assert f"'{key}' is not used here" in str(error) and words in str(error)


def test_weights_and_biases_has_a_stand_in():
    with pytest.raises(ConfigError, match="tensorboard: true writes TensorBoard files"):
        key_table.section("overall")["log_wandb"].check(True, "command line")


def test_argument_names_are_recboles() -> None:
    # Read anew: RecBole adds to its own lists while it runs.
    spec = importlib.util.find_spec("recbole.utils.argument_list")
    argument_list = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(argument_list)
    groups = (value for name, value in vars(argument_list).items() if name.endswith("_arguments"))
    assert sorted(stock.argument_names()) == sorted(name for group in groups for name in group)
