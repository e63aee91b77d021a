"""Finding models: ours, registered ones, entry points, RecBole's; and clear words otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recbole_mm import registry
from recbole_mm.errors import ConfigError
from recbole_mm.spec import CLASSES, OURS, import_object

PLUGIN = """
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from recbole_mm import register_model

@register_model({name!r}, modalities=("text",), defaults="toy.yaml", trainer="a.b:C")
class Toy(GRU4Rec):
    pass
"""
DEFAULTS = "embedding_size: 8\nhidden_size: 8\nnum_layers: 1\ndropout_prob: 0.0\nloss_type: CE\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    plugins, classes = dict(registry._PLUGINS), dict(CLASSES)
    yield
    registry._PLUGINS.clear(), CLASSES.clear()
    registry._PLUGINS.update(plugins), CLASSES.update(classes)


def write_plugin(folder: Path, module: str, name: str = "Toy") -> None:
    (folder / f"{module}.py").write_text(PLUGIN.format(name=name))
    (folder / "toy.yaml").write_text(DEFAULTS)
    (folder / "toy.loud.yaml").write_text("hidden_size: 16\n")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("SASRec", "recbole.model.sequential_recommender.sasrec:SASRec"),
        ("GRU4Rec", "recbole.model.sequential_recommender.gru4rec:GRU4Rec"),
        ("BERT4Rec", "recbole.model.sequential_recommender.bert4rec:BERT4Rec"),
        ("Pop", "recbole.model.general_recommender.pop:Pop"),
        ("ItemKNN", "recbole.model.general_recommender.itemknn:ItemKNN"),
    ],
)
def test_stock_models(name: str, path: str) -> None:
    spec = registry.resolve(name)
    assert (spec.path, spec.origin, spec.modalities) == (path, "recbole", ())
    assert spec.load().__name__ == name


def test_our_models_come_first() -> None:
    spec = registry.resolve("SRIM")
    assert (spec.path, spec.origin) == ("recbole_mm.model.srim.model:SRIM", "recbole_mm")
    settings = spec.load_settings()
    assert settings is not None
    assert settings().feature_files(available=()) == ("text",)
    ours = list(OURS)
    assert registry.available_models()[: len(ours)] == sorted(ours)


def test_every_listed_model_resolves_and_has_its_class_in_the_file() -> None:
    names = registry.available_models()
    assert len(names) == len(set(names)) > 50
    for name in names:
        assert registry.resolve(name).name == name
    assert not {"S3Rec", "DIN", "ComputeSimilarity"} & set(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SASREC", "unknown model 'SASREC'. Did you mean SASRec"),
        ("SASRce", "Did you mean SASRec"),
        ("srim", "Did you mean SRIM"),
        ("Xyzzy", "Known models: .*AlterRec, .*ADMMSLIM"),
        ("S3Rec", "'S3Rec' is not supported: it is trained in two stages"),
        ("FM", "'FM' is not supported: context_aware models"),
        ("CKE", "'CKE' is not supported: knowledge_aware models"),
        ("../etc", "unknown model"),
    ],
)
def test_names_that_cannot_be_run(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.resolve(name)


def test_an_unknown_name_never_imports_the_boosted_trees() -> None:
    with pytest.raises(ConfigError, match="unknown model 'lightgbm'"):
        registry.resolve("lightgbm")
    assert "recbole.model.exlib_recommender" not in sys.modules


def test_nothing_heavy_is_imported_to_resolve_a_name() -> None:
    code = (
        "import sys; from recbole_mm import available_models, registry; available_models();"
        "registry.resolve('SASRec'); registry.resolve('SRIM');"
        "print([m for m in ('torch', 'recbole', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plugin_module_registers_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path, "toy_plugin_a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    registry.load_plugins(["toy_plugin_a"])
    spec = registry.resolve("Toy")
    assert (spec.path, spec.origin) == ("toy_plugin_a:Toy", "plugin")
    assert (spec.modalities, spec.trainer) == (("text",), "a.b:C")
    assert spec.defaults == (tmp_path / "toy.yaml").resolve()
    assert spec.load() is sys.modules["toy_plugin_a"].Toy
    assert registry.spec_of(spec.load()) == spec
    assert registry.presets(spec) == ["sound", "loud"]
    assert "Toy" in registry.available_models()


@pytest.mark.parametrize(
    ("source", "message"),
    [("import no_such_thing_at_all", "no_such_thing_at_all"), ("1/0", "ZeroDivisionError")],
)
def test_a_plugin_that_fails(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"broken_{len(message)}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=f"cannot import '{module}'.*{message}"):
        registry.load_plugins([module])
    with pytest.raises(ConfigError, match="cannot import 'no_plugin'"):
        registry.load_plugins(["no_plugin"])


def test_names_cannot_be_taken_twice(tmp_path: Path) -> None:
    class First:
        pass

    class Second:
        pass

    assert registry.register_model("Mine")(First) is First
    registry.register_model("Mine")(First)  # a module may be loaded again
    with pytest.raises(ConfigError, match="'Mine' is taken by"):
        registry.register_model("Mine")(Second)
    with pytest.raises(ConfigError, match="'SRIM' belongs to recbole_mm"):
        registry.register_model("SRIM")(First)
    with pytest.raises(ConfigError, match=r"no defaults file .*none\.yaml"):
        registry.register_model("Other", defaults=tmp_path / "none.yaml")(First)
    registry.unregister_model("Mine")
    with pytest.raises(ConfigError):
        registry.resolve("Mine")


def test_an_installed_package_declares_a_model_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_package.py").write_text("class Bare:\n    modalities = ('image',)\n")
    info = tmp_path / "toy_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[recbole_mm.models]\nBare = toy_package:Bare\nGone = toy_package:Gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = registry.resolve("Bare")
    assert (spec.path, spec.modalities) == ("toy_package:Bare", ("image",))
    assert "Bare" in registry.available_models()
    with pytest.raises(ConfigError, match="'Gone' of toy_package:Gone cannot be loaded"):
        registry.resolve("Gone")


def test_presets_that_do_not_exist_list_those_that_do() -> None:
    spec = registry.resolve("SASRec")
    assert registry.presets(spec) == ["sound"]
    assert registry.defaults_file(spec) is None
    for wrong in ("paper", "../Pop", "a/b"):
        with pytest.raises(ConfigError, match=r"SASRec has no preset .*; it has: sound"):
            registry.defaults_file(spec, wrong)


def test_paths_of_objects() -> None:
    assert import_object("pathlib:Path.home") == Path.home
    with pytest.raises(ConfigError, match="package.module:Class"):
        import_object("pathlib.Path")
    with pytest.raises(ConfigError, match="pathlib has no 'Nope'"):
        import_object("pathlib:Nope")
