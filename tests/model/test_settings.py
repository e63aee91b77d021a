"""Settings: what a field's annotation and limits accept, and how a configuration is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import pytest

from recbole_mm.errors import ConfigError
from recbole_mm.keys import Key
from recbole_mm.model.settings import ModelSettings, fixed, option

GOOD = {
    "layers": 2, "rate": 0.5, "pool": "mean", "use": "auto", "names": ["text"], "share": 3,
    "weights": None,
}  # fmt: skip


@dataclass(frozen=True)
class Toy(ModelSettings):
    layers: int = option(1, "Layers.", min=1)
    rate: float = option(0.1, "Share of values dropped.", min=0, below=1)
    pool: Literal["last", "mean"] = option("last", "Pooling.")
    use: Literal["auto", True, False] = option("auto", "Whether to read it.")
    names: tuple[str, ...] = option(("text", "image"), "Names.")
    share: int | float = option(0.5, "A number, or a share.", above=0)
    weights: tuple[float, ...] | None = option(None, "Weights, or none.", max=1)


@dataclass(frozen=True)
class Variant(Toy):
    pool: Literal["last", "mean"] = fixed("mean")


def test_keys_follow_from_annotations() -> None:
    keys = Toy.keys()
    assert keys["layers"] == Key("layers", ("int",), min=1)
    assert keys["rate"] == Key("rate", ("float",), min=0, below=1)
    assert keys["pool"] == Key("pool", ("str",), choices=("last", "mean"))
    assert keys["use"] == Key("use", ("str", "bool"), choices=("auto", True, False))
    assert keys["names"] == Key("names", ("list",), ("str",))
    assert keys["share"] == Key("share", ("int", "float"), above=0)
    assert keys["weights"] == Key("weights", ("list",), ("float",), max=1, null=True)
    assert keys["names"].help == "Names."


def test_values_are_read_and_frozen() -> None:
    read = Toy.of({**GOOD, "rate": 0, "weights": [1, 0], "more": "is left alone"})
    assert read == Toy(2, 0.0, "mean", "auto", ("text",), 3, (1.0, 0.0))
    assert isinstance(read.rate, float)
    assert isinstance(read.weights[0], float)
    with pytest.raises(FrozenInstanceError):
        read.layers = 3


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"rate": 1.0}, {"pool": "max"}, {"use": "yes"}, {"names": [1]}]
)
def test_wrong_values_are_named(wrong: Mapping[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(ConfigError, match=f"settings: {key} = .* is not accepted; expected"):
        Toy.of({**GOOD, **wrong})


def test_a_variant_leaves_no_choice_of_what_it_fixes() -> None:
    assert set(Toy.keys()) - set(Variant.keys()) == {"pool"}
    without = {key: value for key, value in GOOD.items() if key != "pool"}
    assert Variant.of(without).pool == "mean"


def test_a_misspelt_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="minimum"):
        option(1, "Layers.", minimum=1)


def test_the_key_table_needs_no_torch() -> None:
    code = (
        "import sys; from recbole_mm import key_table, registry\n"
        "spec = registry.resolve('MMSBR')\n"
        "print(len(key_table.keys_of_settings(spec)) > 20, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
