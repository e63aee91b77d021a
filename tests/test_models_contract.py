"""SRIM and RecBole's own baselines under the contract of ``recbole_mm.testing``.

What a stock model breaks stands in the table with its reason, read in RecBole 1.2.1's source; a
second test makes sure that each such check still fails, so that the table cannot go stale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from recbole_mm.testing import CHECKS, ContractError, Overfit, check_model

NARROW = {"hidden_size": 16, "inner_size": 16}
TRANSFORMER = {
    **NARROW, "n_layers": 1, "n_heads": 2, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1,
}  # fmt: skip
RECURRENT = {"hidden_size": 16, "embedding_size": 16}
SRIM = {"embedding_size": 16, "co_samples": 64}
NFREC = {**NARROW, "n_layers": 1}
ALTERREC = {**NARROW, "n_layers": 1}
MDSREC = {**TRANSFORMER, "n_centers": 4, "n_neighbors": 4}
COHHN = {
    "embedding_size": 16, "gate_dropout_prob": 0.1, "neighbour_dropout_prob": 0.1,
    "category_field": "class",
}  # fmt: skip
MISSREC = {**NARROW, "n_heads": 2, "hidden_dropout_prob": 0.1}
UNISREC = {**TRANSFORMER, "n_experts": 2}
BOTH = {"modalities": ["text", "image"]}
# Each of the two branches gets half of the epochs.
IN_TURNS = Overfit(learning_rate=0.02, epochs=1000)
MMSBR_SIZES = {
    "embedding_size": 16, "inner_size": 16, "n_heads": 2, "n_tokens": 2, "n_pivots": 2,
    "use_text": True, "use_image": True, "category_field": "class",
    "dropout_tokens": 0.1, "dropout_encoder": 0.1, "dropout_price": 0.1,
}  # fmt: skip
MMSBR = {**MMSBR_SIZES, "contrast_sample": 64}
# Item vectors pass through norms and dropout on their way.
SLOWLY = Overfit(learning_rate=0.01, epochs=400)

PARTS = ["transitions", "lexical", "own_items"]
BROKEN_BERT4REC = {
    "batch_of_one": "divides the loss by the number of masked positions, which may be 0",
    "overfits": "learns masked items of the history only, never the row's target",
}
PADDING_STAMP = (
    "sums the vectors of all columns, padding included, and its _init_weights fills the padding "
    "row with random numbers"
)
PADDING_LIGHTSANS = (
    "low-rank attention pools keys and values over all columns without a mask, and its "
    "_init_weights fills the padding row with random numbers"
)


@dataclass(frozen=True)
class Row:
    """How a model is checked; ``broken`` names what it fails, with the reason."""

    model: str
    overrides: dict[str, Any]
    broken: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    overfit: Overfit = Overfit(learning_rate=0.02)


TABLE = {
    "SRIM": Row("SRIM", SRIM),
    # Four literal layers make the vectors of 60 items all alike; one leaves them apart.
    "SRIM paper": Row("SRIM", {**SRIM, "preset": "paper", "n_layers": 1}),
    "SRIM hybrid": Row("SRIM", {**SRIM, "preset": "hybrid"}),
    "SRIM official": Row("SRIM", {"embedding_size": 16, "preset": "official"}),
    "NFRec": Row("NFRec", NFREC),
    "NFRec hybrid": Row("NFRec", {**NFREC, "preset": "hybrid"}),
    "NFRec concat": Row("NFRec", {**NFREC, "preset": "concat", "session_encoder": "transformer"}),
    "NFRec id": Row("NFRec", {**NFREC, "preset": "id"}),
    # The mean of mapped texts cannot tell any session from any other, a Transformer of 64 can.
    "NFRec text": Row(
        "NFRec",
        {**NFREC, "preset": "text", "session_encoder": "transformer", "hidden_size": 64},
        overfit=Overfit(learning_rate=0.01),
    ),
    "AlterRec": Row("AlterRec", ALTERREC, overfit=IN_TURNS),
    "AlterRec hybrid": Row("AlterRec", {**ALTERREC, "preset": "hybrid"}, overfit=IN_TURNS),
    "AlterRec official": Row("AlterRec", {**ALTERREC, "preset": "official"}, overfit=IN_TURNS),
    # At full weight the borrowed positives, wrong by design, compete with the 50 targets.
    "AlterRec aug": Row(
        "AlterRec", {**ALTERREC, "preset": "aug", "augmentation_weight": 0.1}, overfit=IN_TURNS
    ),
    "MDSRec": Row("MDSRec", {**MDSREC, **BOTH}),
    "MDSRec hybrid": Row("MDSRec", {**MDSREC, **BOTH, "preset": "hybrid"}),
    "MDSRec paper": Row("MDSRec", {**MDSREC, **BOTH, "preset": "paper"}),
    "MDSRec text": Row("MDSRec", {**MDSREC, "preset": "text"}),
    "MDSRec id_only": Row("MDSRec", {**MDSREC, "preset": "id_only"}),
    "MMSBR": Row("MMSBR", {**MMSBR, "use_price": True}, overfit=SLOWLY),
    "MMSBR hybrid": Row("MMSBR", {**MMSBR, "preset": "hybrid"}, overfit=SLOWLY),
    "MMSBR no image": Row("MMSBR", {**MMSBR, "use_image": False}, overfit=SLOWLY),
    "MMSBR no price": Row("MMSBR", {**MMSBR, "use_price": False}, overfit=SLOWLY),
    "MMSBR ids only": Row(
        "MMSBR",
        {**MMSBR, "use_text": False, "use_image": False, "use_price": False},
        overfit=SLOWLY,
    ),
    "MMSBR official": Row("MMSBR", {**MMSBR_SIZES, "preset": "official", "n_rounds": 1}),
    "SPop": Row("SPop", {}),
    "SessionRules": Row("SessionRules", {}),
    "SessionRules any": Row("SessionRules", {"rule": None, "n_partners": 5}),
    "SessionKNN": Row("SessionKNN", {"k": 20}),
    "SessionKNN sknn": Row("SessionKNN", {"preset": "sknn"}),
    "SessionKNN vsknn": Row("SessionKNN", {"preset": "vsknn"}),
    "SessionKNN stan": Row("SessionKNN", {"preset": "stan"}),
    "ContentKNN": Row("ContentKNN", {"modality": "text", "n_partners": 10}),
    "Counting": Row("Counting", {}),
    "Counting text": Row("Counting", {"modality": "text", "beta": 0.5}),
    "Pop": Row("Pop", {"train_batch_size": 1}),
    "GRU4Rec": Row("GRU4Rec", RECURRENT),
    "NARM": Row("NARM", RECURRENT),
    "SASRec": Row("SASRec", TRANSFORMER),
    "SASRec with parts": Row("SASRec", {**TRANSFORMER, "score_parts": PARTS}),
    "BERT4Rec": Row(
        "BERT4Rec",
        TRANSFORMER,
        broken=BROKEN_BERT4REC,
    ),
    "SRGNN": Row("SRGNN", {"embedding_size": 16}),
    "GCSAN": Row("GCSAN", TRANSFORMER),
    "STAMP": Row(
        "STAMP",
        {"embedding_size": 16},
        broken={"padding_columns": PADDING_STAMP, "padding_item": PADDING_STAMP},
        # The tanh over the session's sum ends at +-1 for all 50 sessions, so that only their last
        # items tell them apart, and these are 27 different ones.
        overfit=Overfit(learning_rate=0.02, hit=0.5),
    ),
    "CORE": Row(
        "CORE",
        {"embedding_size": 32, "inner_size": 16, "n_layers": 1, "n_heads": 2},
        broken={
            "predict_agrees": "full_sort_predict normalises the item vectors, predict does not"
        },
    ),
    "LightSANs": Row(
        "LightSANs",
        TRANSFORMER,
        broken={"padding_columns": PADDING_LIGHTSANS, "padding_item": PADDING_LIGHTSANS},
    ),
    "GRU4RecF": Row("GRU4RecF", RECURRENT),
    "SASRecF": Row("SASRecF", TRANSFORMER),
    # Attention over the item's columns; over a single one its weight is always 1.
    "FDSA": Row("FDSA", TRANSFORMER, unused=("feature_att_layer.*",)),
    "GRU4RecF vectors": Row("GRU4RecF", {**RECURRENT, **BOTH}),
    "SASRecF vectors": Row("SASRecF", {**TRANSFORMER, **BOTH, "selected_features": []}),
    "FDSA vectors": Row("FDSA", {**TRANSFORMER, **BOTH, "score_parts": PARTS}),
    "CoHHN": Row("CoHHN", COHHN, overfit=Overfit(learning_rate=0.02, epochs=400)),
    "CoHHN with parts": Row(
        "CoHHN",
        {**COHHN, "use_category": False, "score_parts": PARTS},
        # Attention over a single category; its weight is always 1.
        unused=("graph.price_categories.weight",),
        overfit=Overfit(learning_rate=0.02, epochs=400),
    ),
    "MISSRec": Row("MISSRec", MISSREC, overfit=SLOWLY),
    "MISSRec text, inductive": Row(
        "MISSRec",
        {**MISSREC, "preset": "inductive", "modalities": ["text"], "score_parts": PARTS},
        # As for UniSRec below.
        overfit=Overfit(learning_rate=0.01, epochs=400, hit=0.9),
    ),
    "UniSRec": Row("UniSRec", {**UNISREC, **BOTH}, overfit=SLOWLY),
    # Items without a text share one vector: a target among them never comes first alone. And of 12
    # numbers dropout leaves too little to tell the others apart.
    "UniSRec text": Row(
        "UniSRec",
        {**UNISREC, "preset": "text", "hidden_size": 64, "adaptor_dropout_prob": 0.0},
        overfit=Overfit(learning_rate=0.01, epochs=400, hit=0.9),
    ),
    "UniSRec with parts": Row("UniSRec", {**UNISREC, "score_parts": PARTS}, overfit=SLOWLY),
    # Only the targets of the batch are negatives, so that other items may come before the target.
    "UniSRec pretrain": Row(
        "UniSRec",
        {**UNISREC, "preset": "pretrain", "hidden_size": 64, "adaptor_dropout_prob": 0.0},
        overfit=Overfit(learning_rate=0.01, epochs=400, hit=0.5),
    ),
    "DIMO": Row("DIMO", {**SRIM, **BOTH}),
    "DIMO with parts": Row("DIMO", {**SRIM, "score_parts": PARTS}),
    "DIMO official": Row("DIMO", {"embedding_size": 16, "preset": "official"}),
    "LLM2SASRec": Row("LLM2SASRec", {**TRANSFORMER, "score_parts": PARTS}),
    "LLM2BERT4Rec": Row("LLM2BERT4Rec", TRANSFORMER, broken=BROKEN_BERT4REC),
}


# Rows that read item features, so that an item without any says something.
READ_FEATURES = (
    "SRIM hybrid", "NFRec hybrid", "AlterRec hybrid", "MDSRec hybrid", "MMSBR hybrid",
    "SRIM", "SRIM paper", "NFRec", "NFRec concat", "NFRec text", "AlterRec", "AlterRec official",
    "AlterRec aug", "MDSRec", "MDSRec paper", "MDSRec text", "MMSBR", "MMSBR no image",
    "MMSBR no price", "MMSBR official", "ContentKNN", "Counting text",
    "GRU4RecF vectors", "SASRecF vectors", "FDSA vectors", "LLM2SASRec", "LLM2BERT4Rec",
    "MISSRec", "MISSRec text, inductive", "DIMO", "DIMO with parts",
    "UniSRec", "UniSRec text", "UniSRec with parts", "UniSRec pretrain",
)  # fmt: skip
COUNTED_WHEN_BUILT = ("SPop", "SessionRules", "SessionKNN", "ContentKNN", "Counting")


@pytest.mark.parametrize("name", TABLE)
def test_contract(name: str) -> None:
    row = TABLE[name]
    passed = check_model(
        row.model,
        row.overrides,
        known_unused=row.unused,
        exclude=row.broken,
        overfit=row.overfit,
    )
    assert [line.split(" ")[0] for line in passed] == list(CHECKS)
    not_passed = {line.split(" ")[0] for line in passed if " " in line}
    assert not_passed == set(row.broken) | _does_not_apply(name)


def _does_not_apply(name: str) -> set[str]:
    """Return the checks that cannot say anything about a model."""
    counts = {"gradients", "same_seed", "overfits", "padding_item"}
    if name == "Pop":  # counts items: no features, gradients, random numbers or item vectors
        return counts | {"missing_features"}
    if name.startswith(COUNTED_WHEN_BUILT):
        reads = name in READ_FEATURES
        return counts | {"cache"} if reads else counts | {"cache", "missing_features"}
    if name in (
        "NFRec text",
        "MISSRec text, inductive",
        "UniSRec text",
        "UniSRec pretrain",
    ):  # has no vectors of its own for items
        return {"padding_item"}
    if name in READ_FEATURES:
        return set()
    return {"missing_features"}


@pytest.mark.parametrize(
    ("name", "check"), [(name, check) for name, row in TABLE.items() for check in row.broken]
)
def test_what_stock_models_break_is_still_broken(name: str, check: str) -> None:
    row = TABLE[name]
    with pytest.raises(ContractError) as caught:
        check_model(row.model, row.overrides, [check], overfit=Overfit(0.02, epochs=50))
    assert caught.value.check == check


def test_parameters_named_as_unused_must_be_unused() -> None:
    with pytest.raises(ContractError, match="known_unused names") as caught:
        check_model("GRU4Rec", RECURRENT, ["gradients"], known_unused=("dense.*",))
    assert caught.value.check == "gradients"
