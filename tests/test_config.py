"""The configuration: layers, sources, checks, round trip, hash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recbole.utils import InputType, ModelType

from recbole_mm import compat, key_table, registry, yaml_files
from recbole_mm.config import NOT_HASHED, MMConfig
from recbole_mm.errors import ConfigError

STOCK = ["SASRec", "GRU4Rec", "Pop", "SASRecF", "BERT4Rec"]
DATASETS = sorted(file.stem for file in yaml_files.path("dataset").glob("*.yaml"))
TOY = """
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from recbole_mm import register_model

@register_model("ToyConfig", defaults="toy.yaml")
class ToyConfig(GRU4Rec):
    pass
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Register a third-party model with defaults and a preset."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_config_model.py").write_text(TOY)
    (folder / "toy.yaml").write_text(
        "embedding_size: 8\nhidden_size: 8\nnum_layers: 1  # (int) Layers.\n"
        "dropout_prob: 0.0\nloss_type: CE\nepochs: 7\nsplit_seed: 7\nseed: 7\nstopping_step: 7\n"
    )
    (folder / "toy.loud.yaml").write_text(
        "epochs: 8\nsplit_seed: 8\nseed: 8\nsplit_by: leave_one_out\n"
    )
    sys.path.insert(0, str(folder))
    registry.load_plugins(["toy_config_model"])
    yield "ToyConfig"
    sys.path.remove(str(folder))
    registry.unregister_model("ToyConfig")


def write(file: Path, **values: Any) -> Path:
    file.write_text(yaml.safe_dump(values))
    return file


def message(model: str = "SASRec", files: list[Path] | None = None, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        MMConfig(model, "ml-100k", files or [], overrides)
    return str(caught.value)


# ---- Layers ----


def test_each_layer_wins_over_the_one_below(toy: str, tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", split_seed=10, seed=10)
    second = write(tmp_path / "second.yaml", seed=11)
    config = MMConfig(toy, "ml-100k", [first, second], {"preset": "loud"})
    assert config["eval_step"] == 1  # RecBole's overall
    assert config["MAX_ITEM_LIST_LENGTH"] == 20  # ours over RecBole's 50
    assert config["stopping_step"] == 7  # the model's over our 5
    assert config["epochs"] == 8  # the preset's over the model's
    assert config["split_by"] == "session_time"  # the data set's over the preset's
    assert config["split_seed"] == 10  # the user's file over all of these
    assert config["seed"] == 11  # the second file over the first
    assert MMConfig(toy, "ml-100k", [second], {"seed": 12})["seed"] == 12


def test_sources_and_explanations(toy: str, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", seed=10)
    config = MMConfig(toy, "ml-100k", [file], {"epochs": 3})
    assert config.source("seed") == str(file)
    assert config.source("epochs") == "command line"
    assert config.source("split_by") == "properties/dataset/ml-100k.yaml"
    assert config.source("topk") == "properties/overall.yaml"
    assert config.source("eval_step") == "RecBole's properties/overall.yaml"
    text = config.explain("epochs").splitlines()
    assert text[0] == "epochs = 3"
    assert text[1] == "  accepts int, at least 1"
    sources = [line.split(" from ")[-1] for line in text[3:]]
    assert sources[0] == "command line"
    assert sources[1].endswith("toy.yaml")
    assert sources[2:] == ["properties/overall.yaml", "RecBole's properties/overall.yaml"]


def test_a_preset_that_is_a_class_of_its_own_decides_some_keys() -> None:
    config = MMConfig("SRIM", "none", (), {"preset": "official", "n_layers": 2})
    assert config.model_class.__name__ == "OfficialSRIM"
    assert "align" not in config.to_plain()
    assert config["n_layers"] == 2
    for ask in (
        lambda: config.explain("align"),
        lambda: MMConfig("SRIM", "none", (), {"preset": "official", "align": "paper"}),
    ):
        with pytest.raises(ConfigError, match="align is not accepted; with preset: official the"):
            ask()
    again = MMConfig("SRIM", "none", (), config.to_plain())
    assert again.hash() == config.hash()


def test_a_key_of_an_earlier_version_is_answered_with_what_became_of_it() -> None:
    with pytest.raises(ConfigError, match="SRIM has no key 'joint_sign' any more: the loss is"):
        MMConfig("SRIM", "none", (), {"joint_sign": -1})


@pytest.mark.parametrize("model", ["SASRec", "SRIM"])
def test_every_key_is_explained(model: str) -> None:
    config = MMConfig(model, "Cellphones")
    for key in config.to_plain():
        lines = config.explain(key).splitlines()
        assert lines[0].startswith(f"{key} = ")
        assert lines[1].startswith("  accepts ")
    with pytest.raises(ConfigError, match="unknown key 'epoch'.*Did you mean epochs"):
        config.explain("epoch")


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", STOCK)
def test_stock_models_on_every_shipped_data_set(model: str, dataset: str) -> None:
    config = MMConfig(model, dataset)
    assert config["USER_ID_FIELD"] == "session_id"
    assert config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    assert config["MODEL_INPUT_TYPE"] == InputType.POINTWISE
    assert config["train_neg_sample_args"]["distribution"] == "none"
    assert config["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert config["valid_neg_sample_args"] == {"distribution": "uniform", "sample_num": "none"}
    assert Path(config["data_path"]).name == dataset


@pytest.mark.parametrize("dataset", DATASETS)
def test_our_model_and_its_presets(dataset: str) -> None:
    spec = registry.resolve("SRIM")
    for preset in registry.presets(spec):
        assert MMConfig("SRIM", dataset, overrides={"preset": preset})["preset"] == preset


def test_pop_is_evaluated_like_all_others_and_counts_row_by_row() -> None:
    config = MMConfig("Pop", "ml-100k")
    assert config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    assert config["NATIVE_MODEL_TYPE"] == ModelType.TRADITIONAL
    assert config["repeatable"] is True
    assert config["train_batch_size"] == 1
    assert MMConfig("Pop", "ml-100k", (), {"train_batch_size": 512})["train_batch_size"] == 1


def test_negatives_only_where_the_loss_needs_them() -> None:
    assert MMConfig("FPMC", "ml-100k")["train_neg_sample_args"]["distribution"] == "uniform"
    for model in ("BPR", "NeuMF"):  # pairwise and pointwise
        config = MMConfig(model, "ml-100k", (), {"split_by": "leave_one_out"})
        assert config["train_neg_sample_args"]["sample_num"] == 1
    bpr = MMConfig("SASRec", "ml-100k", overrides={"loss_type": "BPR"})
    assert bpr["train_neg_sample_args"]["distribution"] == "uniform"
    assert bpr["MODEL_INPUT_TYPE"] == InputType.PAIRWISE
    asked = {"distribution": "popularity", "sample_num": 2}
    given = MMConfig("FPMC", "ml-100k", overrides={"train_neg_sample_args": asked})
    assert given["train_neg_sample_args"]["distribution"] == "popularity"
    assert "because loss_type is CE" in message(train_neg_sample_args=asked)
    assert asked == {"distribution": "popularity", "sample_num": 2}


@pytest.mark.parametrize("split_by", ["session_time", "session_random", "given"])
@pytest.mark.parametrize("model", ["BPR", "ItemKNN", "NeuMF", "EASE"])
def test_models_that_score_by_user_need_users_of_training(model: str, split_by: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MMConfig(model, "ml-100k", (), {"split_by": split_by})
    assert f"split_by = '{split_by}' is not accepted" in str(caught.value)
    for word in (model, "training holds none of the test sessions", "SessionKNN", "leave_one_out"):
        assert word in str(caught.value)
    config = MMConfig(model, "ml-100k", (), {"split_by": "leave_one_out"})
    assert config["split_by"] == "leave_one_out"


@pytest.mark.parametrize("model", ["Pop", "Random", "SASRec", "FPMC", "SRIM"])
def test_models_that_need_no_user_take_any_split(model: str) -> None:
    for split_by in ("session_time", "session_random", "leave_one_out"):
        config = MMConfig(model, "ml-100k", (), {"split_by": split_by})
        assert config["split_by"] == split_by


def test_a_subclass_is_refused_only_if_it_is_scored_by_user() -> None:
    stock = registry.resolve("ItemKNN").load()
    with pytest.raises(ConfigError, match="Heir scores by what training held of the session"):
        MMConfig(type("Heir", (stock,), {}), "ml-100k")
    own = type("Own", (stock,), {"full_sort_predict": lambda self, interaction: None})
    assert MMConfig(own, "ml-100k")["model"] == "Own"


def test_a_class_can_stand_for_its_name(toy: str) -> None:
    cls = registry.resolve(toy).load()
    assert MMConfig(cls, "ml-100k").hash() == MMConfig(toy, "ml-100k").hash()
    pop = registry.resolve("Pop").load()
    assert MMConfig(pop, "ml-100k")["train_batch_size"] == 1
    config = MMConfig(type("Bare", (pop,), {}), "ml-100k")
    assert (config["model"], config.spec.origin) == ("Bare", "plugin")


# ---- Errors before anything heavy ----


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("lerning_rate", 1, ["unknown key 'lerning_rate'", "Did you mean learning_rate"]),
        ("learning-rate", 1, ["Did you mean learning_rate"]),
        ("mask_ratio", 0.1, ["It is a key of LLM2BERT4Rec, BERT4Rec", "SASRec does not read it"]),
        ("w_co", 0.1, ["It is a key of DIMO, SRIM"]),
        ("qwertzuiop", 1, ["unknown key 'qwertzuiop'", "`--explain` lists the keys"]),
        ("MODEL_TYPE", 1, ["unknown key"]),
        ("learning_rate", "fast", ["learning_rate = 'fast'", "expected float, above 0"]),
        ("learning_rate", 0, ["learning_rate = 0 ", "above 0"]),
        ("epochs", 1.5, ["epochs = 1.5", "expected int, at least 1"]),
        ("train_prefixes", 1, ["train_prefixes = 1", "expected bool"]),
        ("split_by", "time", ["one of: 'session_time', 'session_random', 'leave_one_out'"]),
        ("split_ratio", [8, 2], ["3 members"]),
        ("split_ratio", [8, 2, 0], ["above 0"]),
        ("hidden_size", "64", ["hidden_size = '64'"]),
        ("hidden_dropout_prob", 1.0, ["below 1"]),
        ("n_heads", 3, ["a divisor of hidden_size = 64"]),
        ("metrics", ["Hit", "AUC"], ["one of: 'Hit', 'MRR'"]),
        ("valid_metric", "NDCG@5", ["valid_metric = 'NDCG@5'", "[10, 20]"]),
        ("valid_metric", "NDCG", ["valid_metric"]),
        ("eval_args", {"mode": "uni100"}, ["use split_by"]),
        ("repeatable", False, ["one of: true"]),
        ("save_dataset", True, ["pickle"]),
        ("preset", "paper", ["SASRec has no preset 'paper'; it has: sound"]),
        ("model", "GRU4Rec", ["model is given twice"]),
        ("run_folder", object(), ["expected a plain value"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_right(
    key: str, value: object, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        MMConfig("SASRec", "ml-100k", overrides={key: value})
    text = str(caught.value)
    assert all(part in text for part in parts), text


def test_errors_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", epochs=0)
    assert message(files=[file]).startswith(f"{file}: epochs = 0 is not accepted")
    file = write(tmp_path / "mine.yaml", epoch=3)
    assert message(files=[file]).startswith(f"{file}: unknown key 'epoch'")
    assert message(epochs=0).startswith("command line: epochs = 0")


def test_types_of_a_third_party_model_come_from_its_yaml(toy: str) -> None:
    assert "expected int" in message(toy, num_layers=1.5)
    assert "expected int" in message(toy, hidden_size="big")
    assert "unknown key 'n_layers'" in message(toy, n_layers=1)
    assert MMConfig(toy, "ml-100k", overrides={"dropout_prob": 0.5})["dropout_prob"] == 0.5


def test_a_missing_name_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="which model"):
        MMConfig(None, "ml-100k")
    with pytest.raises(ConfigError, match="which dataset"):
        MMConfig("Pop", None)


def test_no_tag_of_python_is_read(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    file = tmp_path / "evil.yaml"
    file.write_text(f"seed: !!python/object/apply:os.mkdir ['{marker}']\n")
    assert "only plain YAML values" in message(files=[file])
    assert not marker.exists()


def test_neither_argv_nor_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prog", "--seed=5", "--epochs=1+1"])
    config = MMConfig("SASRec", "ml-100k", overrides={"text_encoder": "1+1"})
    assert (config["seed"], config["epochs"]) == (2020, 100)
    assert config["text_encoder"] == "1+1"


# ---- What is computed ----


def test_columns_follow_the_model() -> None:
    inter = ["session_id", "item_id", "timestamp"]
    assert MMConfig("SASRec", "ml-100k")["load_col"] == {"inter": inter}
    for model in ("SASRecF", "GRU4RecF", "FDSA"):
        config = MMConfig(model, "ml-100k")
        assert config["load_col"] == {"inter": inter, "item": ["item_id", "genres"]}
        assert config["selected_features"] == ["genres"]
    mine = {"inter": ["session_id", "item_id"]}
    assert MMConfig("SASRecF", "x", overrides={"load_col": mine})["load_col"] == mine


def test_columns_that_the_item_file_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.item").write_text("item_id:token\tcolour:token\tsize:float\n1\tred\t2\n")
    where = {"data_path": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"selected_features = \['class'\].*colour, size"):
        MMConfig("SASRecF", "mine", overrides=where)
    config = MMConfig("SASRecF", "mine", overrides={**where, "selected_features": ["colour"]})
    assert config["load_col"]["item"] == ["item_id", "colour"]


@pytest.mark.parametrize("dataset", ["ml-100k", "mine"])
def test_data_lie_where_they_are_said_to_lie(dataset: str, tmp_path: Path) -> None:
    config = MMConfig("SASRec", dataset, overrides={"data_path": str(tmp_path)})
    assert config["data_path"] == str(tmp_path / dataset)
    assert config.to_plain()["data_path"] == str(tmp_path)


def test_features_go_beside_the_data_or_into_a_cache(tmp_path: Path) -> None:
    where = {"data_path": str(tmp_path)}
    folder = tmp_path / "mine"
    folder.mkdir()
    assert MMConfig("SASRec", "mine", overrides=where)["feature_path"] == str(folder)
    asked = MMConfig("SASRec", "mine", overrides={**where, "feature_path": "f"})
    assert asked["feature_path"] == "f"
    folder.chmod(0o555)  # nobody's to write, not even root's
    cache = str(Path("feature_cache") / "mine")
    assert MMConfig("SASRec", "mine", overrides=where)["feature_path"] == cache
    folder.chmod(0o755)


def test_visible_devices_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert MMConfig("SASRec", "ml-100k")["device"] == torch.device("cuda", 0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    cpu = MMConfig("SASRec", "ml-100k", overrides={"use_gpu": False})
    assert cpu["device"] == torch.device("cpu")
    assert compat.choose_device("1,0", True) == torch.device("cuda", 1)
    assert compat.choose_device(None, True) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"gpu_id = 2 .*0 \.\.\. 1"):
        MMConfig("SASRec", "ml-100k", overrides={"gpu_id": 2})


# ---- Round trip and hash ----


@pytest.mark.parametrize("model", [*STOCK, "FPMC", "SRIM", "ToyConfig"])
def test_a_saved_configuration_gives_the_same_configuration(
    model: str, toy: str, tmp_path: Path
) -> None:
    overrides = {"epochs": 3, "gpu_id": 0, "split_ratio": [8, 1, 1]}
    config = MMConfig(model, "Cellphones", overrides=overrides)
    file = write(tmp_path / "saved.yaml", **config.to_plain())
    again = MMConfig(None, None, [file])
    assert again.to_plain() == config.to_plain()
    assert again.hash() == config.hash()
    internal = {"data_path", "feature_path"}
    for key, value in config.final_config_dict.items():
        assert again[key] == value or key in internal, key
    assert json.loads(json.dumps(config.to_plain())) == config.to_plain()


def test_the_hash_sees_what_changes_numbers_and_nothing_else(tmp_path: Path) -> None:
    base = MMConfig("SRIM", "Cellphones")
    changes = {
        "seed": 1, "epochs": 3, "learning_rate": 0.5, "split_seed": 1, "cold_targets": "drop",
        "missing_features": "mean", "MAX_ITEM_LIST_LENGTH": 7, "w_co": 0.5, "topk": [10, 20, 5],
    }  # fmt: skip
    hashes = {MMConfig("SRIM", "Cellphones", overrides={k: v}).hash() for k, v in changes.items()}
    hashes |= {
        base.hash(),
        MMConfig("SRIM", "ml-100k").hash(),
        MMConfig("Pop", "Cellphones").hash(),
    }
    assert len(hashes) == len(changes) + 3
    quiet = {
        "run_folder": "r", "checkpoint_dir": "c", "data_path": str(tmp_path), "feature_path": "f",
        "tensorboard": True, "gpu_id": 1, "use_gpu": False, "worker": 1, "state": "ERROR",
        "show_progress": False, "loss_decimal_place": 2, "wandb_project": "w",
            "case_sessions": ["s1"], "case_topk": 3, "floor": False,
    }  # fmt: skip
    assert set(quiet) == set(NOT_HASHED)
    for key, value in quiet.items():
        assert MMConfig("SRIM", "Cellphones", overrides={key: value}).hash() == base.hash(), key
    same = MMConfig("SRIM", "Cellphones", overrides={"learning_rate": base["learning_rate"]})
    assert same.hash() == base.hash()


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from recbole_mm import MMConfig; print(MMConfig('SASRec', 'ml-100k').hash())"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.strip() == MMConfig("SASRec", "ml-100k").hash()


def test_values_set_by_the_program() -> None:
    config = MMConfig("SASRec", "ml-100k")
    before = config.hash()
    config["run_folder"] = "somewhere"
    config["MASK_INDEX"] = "x"
    assert config.hash() == before
    assert config.to_plain()["run_folder"] is None
    mine = MMConfig("SASRec", "ml-100k", overrides={"run_folder": "mine"})
    assert (mine["run_folder"], mine.to_plain()["run_folder"]) == ("mine", None)
    config["epochs"] = 3
    assert config.hash() == MMConfig("SASRec", "ml-100k", overrides={"epochs": 3}).hash()
    with pytest.raises(ConfigError, match="program: epochs = 0"):
        config["epochs"] = 0


# ---- An installed wheel ----


def test_the_properties_are_found_inside_an_installed_package(tmp_path: Path) -> None:
    package = tmp_path / "site" / "recbole_mm"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(yaml_files.PACKAGE, package, ignore=ignore)
    shutil.copytree(yaml_files.path(), package / "properties", ignore=ignore, dirs_exist_ok=True)
    code = (
        "import recbole_mm.config as c; from recbole_mm import yaml_files as y;"
        "config = c.MMConfig('SASRec', 'ml-100k');"
        "print(y.path(), config['data_path'], config.source('seed'))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env=env, cwd=tmp_path,
    )  # fmt: skip
    found = done.stdout.split()
    data, source = Path("atomic_data", "ml-100k"), "recbole_mm/properties/overall.yaml"
    assert found == [str(package / "properties"), str(data), source]


def test_shared_rows_do_not_bind_third_party_models(toy: str) -> None:
    assert key_table.known_keys(registry.resolve(toy))["dropout_prob"].below is None
    assert key_table.known_keys(registry.resolve("GRU4Rec"))["dropout_prob"].below == 1
