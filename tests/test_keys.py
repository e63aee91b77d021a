"""The table of keys: it covers every shipped key, and its checks are exact at the limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_mm import keys, registry, yaml_files
from recbole_mm.errors import ConfigError

# Recipes hold options of `encode`, no keys of a run; tests/encode/test_recipe.py reads them.
SHIPPED = sorted(f for f in yaml_files.path().rglob("*.yaml") if f.parent.name != "recipe")


def rows(*names: str) -> dict[str, keys.Key]:
    return {key: row for name in names for key, row in keys.section(name).items()}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_key_has_a_row_and_its_value_is_accepted(file: Path) -> None:
    if file.name == "keys.yaml":
        return
    model = file.name.split(".")[0] if file.parent.name == "model" else ""
    sections = ("shared", "overall") if file.parent.name == "dataset" else ("overall", model)
    table = rows(*sections)
    for key, value in yaml_files.load_yaml(file).items():
        assert key in table, f"{key} of {file.name} stands in no section of keys.yaml"
        table[key].check(value, file.name)


def test_every_row_has_a_help_text_and_a_type() -> None:
    for name in yaml_files.load_yaml(yaml_files.path("keys.yaml")):
        for key, row in keys.section(name).items():
            assert row.help.endswith("."), f"{name}.{key}"
            assert row.types, f"{name}.{key}"


def test_every_section_is_a_model_or_general() -> None:
    names = set(yaml_files.load_yaml(yaml_files.path("keys.yaml"))) - {"overall", "shared"}
    assert names <= set(registry.available_models())


def test_a_row_with_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'epochs' holds unknown \['mn'\]"):
        keys.from_table("epochs", {"type": "int", "mn": 1})
    with pytest.raises(ConfigError, match=r"unknown \['integer'\]"):
        keys.from_table("epochs", {"type": "integer"})


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
    key = keys.from_table("x", row)
    for value in good:
        key.check(value, "here")
    for value in bad:
        with pytest.raises(ConfigError, match="here: x = "):
            key.check(value, "here")


def test_values_are_made_equal_so_that_equal_settings_hash_alike() -> None:
    assert type(keys.from_table("x", {"type": "float"}).check(1, "")) is float
    ratio = keys.from_table("x", {"type": "list", "items": ["int", "float"]})
    assert [type(v) for v in ratio.check((7, 2.5), "")] == [int, float]
    metrics = keys.from_table("x", {"type": "list", "items": "str", "choices": ["Hit"]})
    with pytest.raises(ConfigError):
        metrics.check(["hit"], "")
    loose = keys.from_table("x", {"type": "list", "choices": ["Hit"], "ignore_case": True})
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
    table = keys.inferred(file)
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
    known = keys.known_keys(registry.resolve("FEARec"))
    assert {"tau", "sim", "contrast"} <= set(known)
    assert "device" not in keys.known_keys(registry.resolve("GCSAN"))
    assert "tau" not in keys.known_keys(registry.resolve("SASRec"))
