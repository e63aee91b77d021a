"""The configuration of one run: RecBole's layers, ours, the user's files, the command line.

Two RecBole 1.2.1 habits are dropped on purpose: reading ``sys.argv`` inside the class, and passing
values through ``eval``. Every value carries its source, so that an error can name file and key.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.utils import InputType, ModelType

from recbole_mm import compat, key_table, keys, nested, processes, registry, stock, yaml_files
from recbole_mm.data.atomic import header
from recbole_mm.early import COMMAND_LINE
from recbole_mm.errors import ConfigError
from recbole_mm.files import checked_name
from recbole_mm.spec import ModelSpec

# Keys that say where and how loudly a run computes; they cannot change its numbers.
# The data themselves are pinned by the fingerprint in result.json, not by their folder's name.
NOT_HASHED = (
    "run_folder",
    "checkpoint_dir",
    "data_path",
    "feature_path",
    "tensorboard",
    "gpu_id",
    "use_gpu",
    "worker",
    "state",
    "show_progress",
    "loss_decimal_place",
    "wandb_project",
    "case_sessions",
    "case_topk",
    "floor",
)
# Plain values by key, as YAML gives them.
Values = dict[str, Any]


class MMConfig(Config):
    """Configuration of one model on one data set.

    Layers, later ones win key by key: RecBole's overall, model and data set YAML; this package's
    ``properties/overall.yaml``, ``model/<Model>.yaml``, ``model/<Model>.<preset>.yaml``,
    ``dataset/<Dataset>.yaml``; the user's files in order; ``overrides``.

    Parameters
    ----------
    model
        Name of a model, or a model class. None takes the key ``model`` of the files or overrides.
    dataset
        Name of the data set. None takes the key ``dataset``.
    config_files
        YAML files of the user.
    overrides
        Keys from the command line, as plain values.

    Attributes
    ----------
    spec
        The model's :class:`~recbole_mm.spec.ModelSpec`.

    Raises
    ------
    ConfigError
        An unknown model, preset or key, or a value of the wrong type or out of range.
    """

    spec: ModelSpec

    def __init__(
        self,
        model: str | type | None,
        dataset: str | None,
        config_files: Sequence[str | Path] = (),
        overrides: Mapping[str, object] | None = None,
    ) -> None:
        compat.require_versions()
        compat.restore_numpy_names()
        self._inner: dict[str, list[tuple[str, object]]] = {}
        self._outer: dict[str, list[tuple[str, object]]] = {}
        self._plain: Values = {}
        super().__init__(model, dataset, list(config_files), dict(overrides or {}))

    # ---- Reading the layers (called by RecBole's constructor, in this order) ----

    def _init_parameters_category(self) -> None:
        """Copy RecBole's lists of names: the original lets every Config append to global lists."""
        super()._init_parameters_category()
        self.parameters: dict[str, list[str]] = {k: [*v] for k, v in self.parameters.items()}

    def _build_yaml_loader(self) -> type[yaml_files.PlainLoader]:
        """Return our loader; the original adds a resolver to ``yaml.FullLoader`` for everyone."""
        return yaml_files.PlainLoader

    def _convert_config_dict(self, config_dict: Values) -> Values:
        """Return values as they are; the original passes texts through ``eval``."""
        return config_dict

    def _load_cmd_line(self) -> Values:
        """Return nothing: the command line arrives as ``overrides``."""
        return {}

    def _load_config_files(self, file_list: Sequence[str | Path]) -> Values:
        """Read the user's files."""
        merged: Values = {}
        for file in file_list:
            layer = yaml_files.load_yaml(file)
            self._note(self._outer, layer, yaml_files.short(file))
            merged.update(layer)
        return merged

    def _load_variable_config_dict(self, config_dict: Values) -> Values:
        """Take the overrides."""
        plain = {key: keys.plain(value, key) for key, value in config_dict.items()}
        self._note(self._outer, plain, COMMAND_LINE)
        return plain

    def _get_model_and_dataset(
        self, model: str | type | None, dataset: str | None
    ) -> tuple[str, type, str]:
        """Find the model in our registry instead of RecBole's modules."""
        model = model or self.external_config_dict.get("model")
        dataset = dataset or self.external_config_dict.get("dataset")
        for key, value, example in (("model", model, "SRIM"), ("dataset", dataset, "Cellphones")):
            if not value:
                raise ConfigError(f"which {key}? Give --{key}, for example --{key}={example}")
        self.spec = registry.spec_of(model)
        for key, value in (("model", self.spec.name), ("dataset", dataset)):
            other = self.variable_config_dict.get(key, value)
            if other != value:
                raise ConfigError(f"{key} is given twice, as {value!r} and as {other!r}")
        return self.spec.name, self.spec.load(), checked_name(str(dataset), "dataset")

    def _update_internal_config_dict(self, file: str | Path) -> Values:
        """Add one layer below the user's."""
        layer = yaml_files.load_yaml(file)
        self._note(self._inner, layer, stock.layer_name(file))
        self.internal_config_dict.update(layer)
        return layer

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        """Read RecBole's layers, then ours; a preset may bring a class of its own."""
        self._known = key_table.known_keys(self.spec)
        super()._load_internal_config_dict(model, model_class, dataset)
        self._update_internal_config_dict(yaml_files.path("overall.yaml"))
        defaults = registry.defaults_file(self.spec)
        if defaults is not None:
            self._update_internal_config_dict(defaults)
        by_dataset = self._dataset_layer(dataset)
        layers = {**self.internal_config_dict, **by_dataset, **self.external_config_dict}
        preset = str(layers["preset"])
        if preset != "sound":
            file = registry.defaults_file(self.spec, preset)
            self._update_internal_config_dict(str(file))
        self._note(self._inner, by_dataset, f"properties/dataset/{dataset}.yaml")
        self.internal_config_dict.update(by_dataset)
        if preset in self.spec.variants:
            self._take_variant(preset)

    def _take_variant(self, preset: str) -> None:
        """Take the class of a preset, and drop the model's defaults that it leaves no choice of."""
        self.model_class = self.spec.load(preset)
        decided = set(self._known)
        self._known = key_table.known_keys(self.spec, preset)
        for key in decided - set(self._known):
            self.internal_config_dict.pop(key, None)

    def _dataset_layer(self, dataset: str) -> Values:
        """Read our YAML of the data set, without keys that only other models have.

        So one file can name the item columns for the models that read columns at all.
        """
        file = yaml_files.path("dataset", f"{dataset}.yaml")
        layer = yaml_files.load_yaml(file) if file.is_file() else {}
        elsewhere = set(key_table.section("shared")) - set(self._known)
        return {key: value for key, value in layer.items() if key not in elsewhere}

    def _note(
        self, history: dict[str, list[tuple[str, object]]], layer: Mapping, source: str
    ) -> None:
        """Remember where each key of a layer comes from."""
        for key, value in layer.items():
            history.setdefault(key, []).append((source, value))

    # ---- Checking ----

    def given(self) -> Values:
        """Return the keys set by files, the command line or the program that shape the model."""
        plain = {key: history[-1][1] for key, history in self._outer.items()}
        ours = (*NOT_HASHED, "model", "dataset", "seed", "epochs")
        return {key: value for key, value in plain.items() if key not in ours}

    def source(self, key: str) -> str:
        """Return where the value of a key comes from: a file, ``command line`` or ``program``."""
        history = self._outer.get(key) or self._inner.get(key)
        return history[-1][0] if history else "program"

    def _get_final_config_dict(self) -> Values:
        """Merge the layers and check every key and value, before anything heavy is done."""
        native = self.internal_config_dict.pop("MODEL_TYPE")
        merged = super()._get_final_config_dict()
        merged.update(model=self.model, dataset=self.dataset)
        given = {key: (value, self.source(key)) for key, value in merged.items()}
        plain = key_table.checked(given, self._known, self.model, str(merged["preset"]))
        plain["metrics"], plain["topk"] = _listed(plain["metrics"]), _listed(plain["topk"])
        self._plain = copy.deepcopy(plain)
        self._check_together(plain)
        # One kind of rows, candidates and history for every model, whatever RecBole calls it.
        return {**plain, "MODEL_TYPE": ModelType.SEQUENTIAL, "NATIVE_MODEL_TYPE": native}

    def _check_together(self, values: Values) -> None:
        """Check keys that must fit each other."""
        metric, _, k = values["valid_metric"].partition("@")
        names = [name.lower() for name in values["metrics"]]
        if metric.lower() not in names or k not in map(str, values["topk"]):
            raise self._misfit(
                "valid_metric", f"a metric of {values['metrics']} @ {values['topk']}"
            )
        fixed = yaml_files.load_yaml(yaml_files.path("overall.yaml"))["eval_args"]
        if values["eval_args"] != fixed:
            raise self._misfit(
                "eval_args", f"{fixed}; use split_by, split_ratio and eval_targets instead"
            )
        if values.get("loss_type") == "CE" and values["train_neg_sample_args"]:
            raise self._misfit("train_neg_sample_args", "~ because loss_type is CE")
        for key, expected in nested.misfits(values).items():
            raise self._misfit(key, expected)
        if values["length_buckets"] and not values["shuffle"]:
            raise self._misfit("length_buckets", "0 because shuffle is false")
        self._check_sessions_known(values)
        heads, width = values.get("n_heads"), values.get("hidden_size")
        if isinstance(heads, int) and isinstance(width, int) and width % heads:
            raise self._misfit("n_heads", f"a divisor of hidden_size = {width}")

    def _check_sessions_known(self, values: Mapping[str, object]) -> None:
        """Refuse a model that scores by what it learned of a session's id, where ids are new."""
        if values["split_by"] != "leave_one_out" and stock.scores_by_user(self.model_class):
            raise self._misfit(
                "split_by",
                f"leave_one_out, because {self.model} scores by what training held of the session, "
                "and training holds none of the test sessions: its scores would be equal or "
                "random. Use --model=SessionKNN, which scores by the items of the session, or "
                "--split_by=leave_one_out",
            )

    def _misfit(self, key: str, expected: str) -> ConfigError:
        """Return the error of a key that does not fit another."""
        value = self._plain.get(key)
        return ConfigError(
            f"{self.source(key)}: {key} = {value!r} is not accepted; expected {expected}"
        )

    # ---- Values that are computed ----

    def _set_default_parameters(self) -> None:
        """Fill in paths, columns and negative sampling, then what RecBole derives."""
        values = self.final_config_dict
        root = Path(values["data_path"] or yaml_files.default_data_path())
        values["data_path"] = str(root)
        if values["train_neg_sample_args"] is None and self._needs_negatives():
            values["train_neg_sample_args"] = {"distribution": "uniform", "sample_num": 1}
        if self.model == "Pop":
            # Stock Pop counts an item once per batch, however often it occurs there.
            values["train_batch_size"] = 1
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            raise ConfigError(f"RecBole refuses the configuration: {error}") from error
        # RecBole sends ml-100k to the copy in its own wheel; here it lies like any other data set.
        values["data_path"] = str(root / self.dataset)
        features = yaml_files.default_feature_path(root / self.dataset, self.dataset)
        values["feature_path"] = values["feature_path"] or str(features)
        if values["load_col"] is None:
            values["load_col"] = self._columns()

    def _set_train_neg_sample_args(self) -> None:
        """Check how negatives are drawn, as RecBole does."""
        try:
            super()._set_train_neg_sample_args()
        except (ValueError, TypeError, LookupError) as error:
            expected = f"{{distribution: uniform, sample_num: 1}} or ~ ({error})"
            raise self._misfit("train_neg_sample_args", expected) from error

    def _needs_negatives(self) -> bool:
        """Return whether training compares the target with sampled items.

        RecBole samples one uniform negative by default; only cross-entropy models and those that
        merely count (Pop, ItemKNN) go without.
        """
        values = self.final_config_dict
        pairwise = getattr(self.model_class, "input_type", None) == InputType.PAIRWISE
        general = values["NATIVE_MODEL_TYPE"] == ModelType.GENERAL
        return bool(pairwise or general or values.get("loss_type") == "BPR")

    def _columns(self) -> dict[str, list[str]]:
        """Return the columns the model needs, per file."""
        values = self.final_config_dict
        item = values["ITEM_ID_FIELD"]
        columns = {"inter": [values["USER_ID_FIELD"], item, values["TIME_FIELD"]]}
        wanted = values.get("selected_features")
        if wanted:
            types = self._item_types(wanted)
            # RecBole leaves numbers out of its sum of feature widths unless they stand here.
            numbers = [name for name in wanted if "float" in types.get(name, "")]
            both = dict.fromkeys([*values["numerical_features"], *numbers])
            values["numerical_features"] = list(both)
            columns["item"] = [item, *wanted]
        return columns

    def _item_types(self, wanted: list[str]) -> dict[str, str]:
        """Return the columns of the item file, where there is one, which must have those wanted."""
        file = Path(self.final_config_dict["data_path"], f"{self.dataset}.item")
        types = header(file) if file.is_file() else {}
        if types and not set(wanted) <= set(types):
            names = ", ".join(list(types)[1:])
            raise self._misfit("selected_features", f"columns of {file}: {names}")
        return types

    def _init_device(self) -> None:
        """Choose the device without touching ``CUDA_VISIBLE_DEVICES``."""
        values = self.final_config_dict
        # Of several processes on a machine each takes the GPU of its own number.
        gpu = processes.local_rank() if processes.launched() else values["gpu_id"]
        device = compat.choose_device(gpu, values["use_gpu"])
        # RecBole's own way of several processes stays off.
        values.update(single_spec=True, local_rank=0, device=device)
        if not processes.leads():
            values["show_progress"] = False

    # ---- Use ----

    def __setitem__(self, key: str, value: object) -> None:
        """Set a value from the program; one that can change the numbers is part of ``to_plain``."""
        super().__setitem__(key, value)
        if key in self._plain and key not in NOT_HASHED:
            self._plain[key] = self._known[key].check(value, "program")
            self._note(self._outer, {key: value}, "program")

    def to_plain(self) -> Values:
        """Return all keys a user may set, as plain values.

        Written as YAML and given to ``--config_files``, they make an equal configuration. The
        folder of this run is left out, lest a repetition with another seed overwrites the run.
        """
        return {**copy.deepcopy(self._plain), "run_folder": None}

    def hash(self) -> str:
        """Return 16 hexadecimal digits that change with every key that can change the numbers."""
        counted = {key: value for key, value in self._plain.items() if key not in NOT_HASHED}
        text = json.dumps(counted, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def explain(self, key: str) -> str:
        """Return a key's value, its sources from the strongest down, what it accepts and does.

        Raises
        ------
        ConfigError
            The key is unknown.
        """
        if key not in self._known:
            preset = str(self.final_config_dict["preset"])
            raise key_table.unknown_key(key, "explain", self._known, self.model, preset)
        row = self._known[key]
        lines = [f"{key} = {self.final_config_dict.get(key)!r}", f"  accepts {row.expected()}"]
        lines += [f"  {row.help}"] if row.help else []
        history = [*self._inner.get(key, []), *self._outer.get(key, [])]
        lines += [f"  {value!r} from {source}" for source, value in reversed(history)]
        return "\n".join(lines)


def _listed(value: object) -> list[object]:
    """Return a single value as a list of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
