"""Reading YAML: floats as people write them, nothing executed, nothing silently overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from recbole_mm import yaml_files
from recbole_mm.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5e1", 5.0),
        ("12", 12),
        ("1.0", 1.0),
        ("1_000", 1000),
        ("true", True),
        ("~", None),
        ("e5", "e5"),
        ("1e-3x", "1e-3x"),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{'distribution': 'uniform'}", {"distribution": "uniform"}),
        ("2020-01-31", "2020-01-31"),
        ("[5,inf)", "[5,inf)"),
        ("0,1", "0,1"),
        ("a=b", "a=b"),
        ("", None),
    ],
)
def test_values(text: str, value: object) -> None:
    read = yaml_files.parse_value(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("tag", ["!!python/object:os.system ls", "!!python/name:os.system", "!x 1"])
def test_tags_are_refused_in_values_and_files(tag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="command line"):
        yaml_files.parse_value(tag)
    file = tmp_path / "bad.yaml"
    file.write_text(f"seed: 1\nepochs: {tag}\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml, line 2, column 9"):
        yaml_files.load_yaml(file)


def test_a_repeated_key_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("seed: 1\nepochs: 2\nseed: 3\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml, line 3.*'seed' stands there twice"):
        yaml_files.load_yaml(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1\n- 2\n", "expected lines 'key: value', got list"),
        ("1: 2\n", "the key 1 must be text"),
        ("a: [1\n", "not valid YAML"),
        ("a: b: c\n", "line 1, column 5: not valid YAML"),
    ],
)
def test_malformed_files(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        yaml_files.load_yaml(file)


def test_deep_nesting_is_an_error(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "a: " + "[" * 100_000, "{a: " * 50_000):
        with pytest.raises(ConfigError, match="command line: nested too deeply"):
            yaml_files.parse_value(text)
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"a\.yaml: nested too deeply"):
            yaml_files.load_yaml(tmp_path / "a.yaml")


def test_missing_empty_and_marked_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file .*none.yaml"):
        yaml_files.load_yaml(tmp_path / "none.yaml")
    file = tmp_path / "x.yaml"
    file.write_text("")
    assert yaml_files.load_yaml(file) == {}
    file.write_bytes("﻿title: Schöne Grüße\r\nseed: 1\r\n".encode())
    assert yaml_files.load_yaml(file) == {"title": "Schöne Grüße", "seed": 1}
    file.write_bytes(b"title: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot read"):
        yaml_files.load_yaml(file)


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\ntopk: {a: 1}\n")
    (tmp_path / "b.yaml").write_text("topk: {b: 2}\n")
    merged = yaml_files.load_files([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert merged == {"seed": 1, "topk": {"b": 2}}


def test_the_loader_is_a_class_of_its_own() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert yaml.load("1e-3", Loader=yaml.FullLoader) in ("1e-3", 0.001)  # RecBole may change it


def test_data_path_prefers_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clone = yaml_files.PACKAGE.parent / "atomic_data"
    assert yaml_files.default_data_path() == clone
    (tmp_path / "atomic_data").mkdir()
    assert yaml_files.default_data_path() == Path("atomic_data")
