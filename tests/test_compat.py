"""Each remedy, and a test that fails once RecBole or its neighbours no longer need it."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.general_recommender.pop import Pop
from recbole.trainer import Trainer
from recbole.utils import get_model

from recbole_mm import compat
from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.run.prepared import load_dataset

GOOD = {
    "recbole": "1.2.1", "numpy": "1.26.4", "pandas": "2.3.3", "torch": "2.13.0+cpu",
    "colorama": "0.4.4", "colorlog": "4.7.2", "tensorboard": "2.21.0", "texttable": "1.7.0",
}  # fmt: skip


@pytest.fixture
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prog"])


@pytest.fixture(autouse=True)
def numpy_names() -> None:
    """Stock Configs, too, are built here, and with numpy 2."""
    compat.restore_numpy_names()


def stock_config(**settings: Any) -> Config:
    return Config("SASRec", "none", config_dict={"train_neg_sample_args": None, **settings})


# ---- 1: versions ----


def test_the_tried_versions_have_no_problem() -> None:
    for minor in (10, 11, 12, 13):
        assert compat.check_versions(GOOD.get, (3, minor)) == []
        newest = {**GOOD, "numpy": "2.4.6", "pandas": "3.1.1"}
        assert compat.check_versions(newest.get, (3, minor)) == []


@pytest.mark.parametrize(
    ("change", "remedy", "fatal"),
    [
        ({"numpy": "1.25.2"}, "pip install 'numpy>=1.26,<3'", True),
        ({"numpy": "3.0.0"}, "pip install 'numpy>=1.26,<3'", True),
        ({"pandas": "4.0.0"}, "pip install 'pandas>=2.1.1,<4'", True),
        ({"recbole": "1.1.1"}, "pip install 'recbole>=1.2.1,<1.3'", True),
        ({"recbole": None}, "pip install 'recbole>=1.2.1,<1.3'", True),
        ({"torch": None}, "pip install 'torch>=2.6,<2.14'", True),
        ({"torch": "2.14.0"}, "pip install 'torch>=2.6,<2.14'", False),
        ({"texttable": None}, "pip install texttable", True),
    ],
)
def test_each_bound_names_the_mending_command(change: dict, remedy: str, fatal: bool) -> None:
    (problem,) = compat.check_versions({**GOOD, **change}.get, (3, 11))
    assert (problem.remedy, problem.fatal) == (remedy, fatal)
    assert next(iter(change)) in problem.what


def test_recbole_comes_without_its_dependencies_where_ray_has_no_wheel() -> None:
    """Checked by a dry run on Python 3.12: pip finds no ray for recbole 1.2.1."""
    (problem,) = compat.check_versions({**GOOD, "recbole": None}.get, (3, 12))
    assert problem.remedy == "pip install --no-deps 'recbole>=1.2.1,<1.3'"
    assert problem.fatal


def test_a_newer_python_is_noted() -> None:
    (problem,) = compat.check_versions(GOOD.get, (3, 14))
    assert "Python 3.14" in problem.what
    assert not problem.fatal


def test_what_recbole_imports_is_what_we_list() -> None:
    """A real second process that cannot find one of them: RecBole breaks, and the line says so."""
    for name in compat._NEEDS:
        code = (
            f"import sys; sys.modules[{name!r}] = None\n"
            "from recbole_mm import cli\n"
            "sys.exit(cli.main(['run', '--model=Pop', '--dataset=ml-100k', '--explain=seed']))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(f"error: {name} is not installed. Type: recbole-mm doctor")


def test_the_package_declares_the_bounds_that_it_checks() -> None:
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    declared = parser["options"]["install_requires"].split("\n")
    for bound in compat._BOUNDS:
        low, high = compat._dotted(bound.low), compat._dotted(bound.high)
        assert any(row.startswith(f"{bound.name}>={low},<{high}") for row in declared), bound
    for name in compat._NEEDS:
        assert any(row.startswith(f"{name}>=") for row in declared), name
    assert parser["options"]["python_requires"] == ">=3.10,<3.14"


def test_the_oldest_versions_that_are_tried_are_those_allowed() -> None:
    root = Path(__file__).parents[1]
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    lines = parser["options"]["install_requires"].split("\n")
    allowed = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(lines), re.MULTILINE))
    text = (root / ".ci" / "lowest.txt").read_text(encoding="utf-8")
    tried = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))
    assert tried.keys() == allowed.keys()
    for name, version in tried.items():
        exact, least = compat._numbers(version), compat._numbers(allowed[name])
        assert exact[: len(least)] == least, name


def test_a_run_stops_before_it_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.require_versions()
    versions = {**GOOD, "pandas": "4.0.0"}
    monkeypatch.setattr(compat.check_versions, "__defaults__", (versions.get, (3, 11)))
    with pytest.raises(ConfigError, match=r"pandas 4\.0\.0.*Type: pip install 'pandas>=2"):
        MMConfig("Pop", "ml-100k")


@pytest.mark.parametrize("name", compat._NUMPY_NAMES)
def test_still_needed_numpy_2_breaks_recbole(
    name: str, monkeypatch: pytest.MonkeyPatch, no_arguments: None
) -> None:
    compat.restore_numpy_names()
    monkeypatch.delattr(np, name)  # as numpy 2 did
    with pytest.raises(AttributeError, match=name):
        stock_config()
    compat.restore_numpy_names()
    stock_config()
    assert vars(np)[name] is getattr(np, compat._NUMPY_NAMES[name])


PANDAS_3 = compat._numbers(pd.__version__) >= (3,)


@pytest.fixture
def gaps(tmp_path: Path) -> dict[str, Any]:
    """Return settings of a data set whose items lack a price, a class and words."""
    (tmp_path / "d").mkdir()
    rows = "".join(f"s{k}\t{k % 3 + step}\t{10 * k + step}\n" for k in range(20) for step in (1, 2))
    (tmp_path / "d" / "d.inter").write_text(
        "session_id:token\titem_id:token\ttimestamp:float\n" + rows
    )
    (tmp_path / "d" / "d.item").write_text(
        "item_id:token\tprice:float\tclass:token\twords:token_seq\n"
        "1\t1\tx\ta b\n2\t\t\t\n3\t3\ty\tb\n4\t8\tx\tc a\n"
    )
    return {"data_path": str(tmp_path), "USER_ID_FIELD": "session_id"}


@contextmanager
def copy_on_write() -> Iterator[None]:
    """As in pandas 3, where it is always so; pandas 2 can be told to."""
    if PANDAS_3:
        yield
        return
    with pd.option_context("mode.copy_on_write", True):
        yield


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::Warning:recbole")
def test_still_needed_copy_on_write_breaks_recbole(gaps: Any, no_arguments: None) -> None:
    columns = {"inter": ["session_id", "item_id"], "item": ["item_id", "price"]}
    with copy_on_write():
        config = Config("Pop", "d", config_dict={**gaps, "load_col": columns})
        prices = Dataset(config).item_feat["price"].tolist()
    assert np.isnan(prices[2])


def test_gaps_in_item_columns_are_filled_with_any_pandas(gaps: Any) -> None:
    """By hand: the mean of 1, 3 and 8; no class, no word."""
    settings = {**gaps, "use_gpu": False, "selected_features": ["price", "class", "words"]}
    with copy_on_write():
        dataset = load_dataset("SASRecF", "d", (), settings)
    feat = dataset.item_feat
    assert feat["price"][1:, 0].tolist() == [1.0, 4.0, 3.0, 8.0]
    names = dataset.field2id_token
    assert [names["class"][one] for one in feat["class"][1:]] == ["x", "[PAD]", "y", "x"]
    words = [[names["words"][one] for one in row if one] for row in feat["words"][1:].tolist()]
    assert words == [["a", "b"], [], ["b"], ["c", "a"]]


def test_still_needed_length_of_cells() -> None:
    column, before = pd.Series([[1, 2], [3], []]), pd.Series.agg
    if PANDAS_3:
        assert column.agg(len) == 3
    else:
        with pytest.warns(FutureWarning, match="built-in function len"):
            assert column.agg(len).tolist() == [2, 1, 0]
    with compat.lengths_of_cells():
        assert column.agg(len).tolist() == [2, 1, 0]
        assert pd.Series([1, 2]).agg("sum") == 3
    assert pd.Series.agg is before


# ---- 2: TensorBoard ----


def build_trainer(folder: Path) -> Trainer:
    config = stock_config(checkpoint_dir=str(folder / "saved"))
    return Trainer(config, torch.nn.Linear(2, 2))


def test_tensorboard_goes_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_arguments: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with compat.private_tensorboard(None):
        trainer = build_trainer(tmp_path)
        trainer.tensorboard.add_scalar("Loss/Train", 0.5, 0)
        trainer.tensorboard.add_hparams({"a": 1}, {"hparam/best": 1.0})
        trainer.tensorboard.flush()
        trainer.tensorboard.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]
    with compat.private_tensorboard(tmp_path / "board"):
        trainer = build_trainer(tmp_path)
        trainer.tensorboard.add_scalar("Loss/Train", 0.5, 0)
        trainer.tensorboard.close()
    assert len(list((tmp_path / "board").glob("events.*"))) == 1
    assert not (tmp_path / "log_tensorboard").exists()
    # Still needed, and the original is back in its place even after an error.
    with pytest.raises(ZeroDivisionError), compat.private_tensorboard(None):
        _ = 1 / 0
    build_trainer(tmp_path).tensorboard.close()
    assert (tmp_path / "log_tensorboard").is_dir()


# ---- 3: torchvision ----

FAKE_TORCHVISION = """
import torch

@torch.library.register_fake("torchvision::nms")
def _nms(dets, scores, iou_threshold):
    return dets.new_empty(0)
"""


def import_torchvision(prepare: bool, path: str = "") -> subprocess.CompletedProcess[str]:
    first = "print(compat.prepare_torchvision(), compat.prepare_torchvision())" if prepare else ""
    code = f"from recbole_mm import compat\n{first}\nimport torchvision\nprint('imported')"
    paths = [path, os.environ.get("PYTHONPATH", ""), *sys.path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_a_torchvision_of_another_build_is_made_importable(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(FAKE_TORCHVISION)
    (package / "_C.so").write_bytes(b"linked to a library that is not here")
    without = import_torchvision(False, str(tmp_path))
    assert "operator torchvision::nms does not exist" in without.stderr
    assert import_torchvision(True, str(tmp_path)).stdout.split() == ["True", "False", "imported"]


def test_without_torchvision_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_kept_alive", [])
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert compat.prepare_torchvision() is False


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
def test_still_needed_for_the_installed_torchvision() -> None:
    assert import_torchvision(True).stdout.endswith("imported\n")
    if not compat.torchvision_fits():
        assert import_torchvision(False).returncode != 0


# ---- 4, 5: what a stock Config does to the process ----


def test_still_needed_a_stock_config_runs_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prog", "--seed=1+1"])
    assert stock_config()["seed"] == 2
    assert MMConfig("SASRec", "none")["seed"] == 2020


def test_still_needed_a_stock_config_changes_yaml_for_everyone() -> None:
    code = (
        "import yaml\n"
        "def read(): return type(yaml.load('1e-3', Loader=yaml.FullLoader)).__name__\n"
        "from recbole_mm import MMConfig; MMConfig('SASRec', 'none'); ours = read()\n"
        "from recbole.config import Config\n"
        "Config('SASRec', 'none', config_dict={'train_neg_sample_args': None})\n"
        "print(ours, read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["str", "float"]


def test_still_needed_a_stock_config_overwrites_the_visible_devices(
    monkeypatch: pytest.MonkeyPatch, no_arguments: None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    MMConfig("SASRec", "none")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    stock_config()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_still_needed_ml_100k_ignores_the_data_path(no_arguments: None) -> None:
    settings = {"train_neg_sample_args": None, "data_path": "elsewhere"}
    stock = Config("SASRec", "ml-100k", config_dict=settings)
    assert "dataset_example" in stock["data_path"]
    ours = MMConfig("SASRec", "ml-100k", overrides={"data_path": "elsewhere"})
    assert ours["data_path"] == str(Path("elsewhere", "ml-100k"))


# ---- 6, 7, 8 ----


def test_still_needed_cross_entropy_does_not_start_with_recboles_defaults(
    no_arguments: None,
) -> None:
    with pytest.raises(ValueError, match="should be None when the loss_type is CE"):
        Config("SASRec", "none")
    assert MMConfig("SASRec", "none")["train_neg_sample_args"]["distribution"] == "none"


@pytest.mark.skipif(importlib.util.find_spec("lightgbm") is not None, reason="lightgbm is there")
def test_still_needed_an_unknown_model_asks_for_lightgbm() -> None:
    with pytest.raises(ModuleNotFoundError, match="lightgbm|xgboost"):
        get_model("Nope")
    with pytest.raises(ConfigError, match="unknown model 'Nope'"):
        MMConfig("Nope", "none")


def test_still_needed_pop_counts_once_per_batch() -> None:
    config = {"USER_ID_FIELD": "u", "ITEM_ID_FIELD": "i", "NEG_PREFIX": "n", "device": "cpu"}

    class Two:
        def num(self, field: str) -> int:
            return 2

    def count(batches: list[list[int]]) -> int:
        pop = Pop(config, Two())
        for batch in batches:
            pop.calculate_loss(Interaction({"i": torch.tensor(batch)}))
        return int(pop.item_cnt[1])

    assert count([[1, 1]]) == 1
    assert count([[1], [1]]) == 2


def test_known_noise_is_silenced_and_nothing_else() -> None:
    code = (
        "import warnings\nfrom recbole_mm import compat\ncompat.quiet_warnings()\n"
        "scope = {'__name__': 'recbole.data.dataset'}\n"
        "exec(compile('import warnings\\n"
        'warnings.warn("using <built-in function len> in Series.agg", FutureWarning)\\n'
        "warnings.warn(\"something new\", FutureWarning)', 'x', 'exec'), scope)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "something new" in done.stderr
    assert "Series.agg" not in done.stderr


def test_bert4rec_survives_a_batch_without_masks() -> None:
    """A batch of one-item histories whose item is not masked: NaN in RecBole, 0 here."""
    from recbole.data.transform import construct_transform
    from recbole.model.sequential_recommender import BERT4Rec

    config = MMConfig("BERT4Rec", "Cellphones", (), {"hidden_size": 8, "inner_size": 8})
    construct_transform(config)  # names the fields that the model reads
    dataset = type("Items", (), {"num": lambda self, field: 10})()
    model = BERT4Rec(config, dataset)
    seq = torch.zeros(2, config["MAX_ITEM_LIST_LENGTH"], dtype=torch.long)
    seq[:, 0] = 3
    none = torch.zeros(2, model.mask_item_length, dtype=torch.long)
    batch = Interaction(
        {model.MASK_ITEM_SEQ: seq, model.POS_ITEMS: none, model.NEG_ITEMS: none,
         model.MASK_INDEX: none}
    )  # fmt: skip
    assert bool(torch.isnan(model.calculate_loss(batch)))
    guarded = compat.loss_function(model)
    assert guarded is not None
    loss = guarded(batch)
    loss.backward()
    assert loss.item() == 0.0
    none[0, 0] = 1
    model.eval()
    assert guarded(batch).item() == model.calculate_loss(batch).item() > 0
    assert compat.loss_function(torch.nn.Linear(1, 1)) is None
