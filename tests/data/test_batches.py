"""Batches by length: every row once, cut to the longest, and the same loss as uncut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_mm import compat, stock
from recbole_mm.config import MMConfig
from recbole_mm.data.batches import BucketedLoader, LengthBuckets, cut_to_longest
from recbole_mm.errors import ConfigError
from recbole_mm.evaluation.hooks import HasStartEpoch
from recbole_mm.testing.case import SMALL, Case, backward, changed, total, write_toy

WIDTH = 20
SIZES = {
    "hidden_size": 16, "inner_size": 16, "embedding_size": 16, "n_heads": 2, "n_layers": 1,
}  # fmt: skip


def order_of(lengths: list[int], batch: int, pool: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return list(LengthBuckets(torch.tensor(lengths), batch, pool, generator))


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(1, 9), st.integers(1, 5))
def test_every_row_comes_once(lengths: list[int], batch: int, pool: int) -> None:
    assert sorted(order_of(lengths, batch, pool)) == list(range(len(lengths)))


def test_a_pool_by_hand() -> None:
    # One pool of all: sorted 1 1 | 2 2 | 3 9, in any order; the odd seventh row stays last.
    lengths = [9, 1, 2, 1, 3, 2]
    found = [lengths[row] for row in order_of(lengths, 2, 100)]
    assert sorted(map(tuple, np.reshape(found, (3, 2)).tolist())) == [(1, 1), (2, 2), (3, 9)]


def test_pools_of_one_batch_are_the_plain_shuffle() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, 50).tolist()
    plain = torch.randperm(50, generator=torch.Generator().manual_seed(0)).split(8)
    found = torch.tensor(order_of(lengths, 8, 1)).split(8)
    assert [set(b.tolist()) for b in plain] == [set(b.tolist()) for b in found]


def test_the_small_last_batch_is_drawn_and_not_the_longest() -> None:
    lengths = list(range(1, 101))
    last = {tuple(order_of(lengths, 32, 16, seed)[96:]) for seed in range(20)}
    assert len(last) == 20
    assert np.mean([lengths[row] for rows in last for row in rows]) == pytest.approx(50, abs=15)


def test_an_epoch_depends_on_the_generator_alone_and_moves_it_on() -> None:
    generator = torch.Generator().manual_seed(4)
    rows = LengthBuckets(torch.arange(40), 4, 3, generator)
    first, state = list(rows), generator.get_state()
    second = list(rows)
    assert first != second
    generator.set_state(state)
    assert list(rows) == second


def test_the_cut_by_hand() -> None:
    rows = Interaction(
        {"s": torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]]), "n": torch.tensor([2, 1]),
         "other": torch.ones(2, 4)}
    )  # fmt: skip
    found = cut_to_longest(rows, ["s"], "n")
    assert found["s"].tolist() == [[1, 2], [3, 0]] and found["other"].shape == (2, 4)
    assert rows["s"].shape == (2, 4)


def case(folder: Path, model: str, **keys: object) -> Case:
    known = MMConfig(model, SMALL.name).final_config_dict
    sizes = {key: value for key, value in SIZES.items() if key in known}
    return Case(model, {"MAX_ITEM_LIST_LENGTH": WIDTH, **sizes, **keys}, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    write_toy(made, SMALL, ["text", "image"])
    return made


def test_an_epoch_has_the_same_rows_in_narrower_batches(folder: Path) -> None:
    plain = case(folder, "SASRec").prepare().train
    prepared = case(folder, "SASRec", length_buckets=4).prepare()
    assert type(plain) is TrainDataLoader and type(prepared.train) is BucketedLoader
    made = list(prepared.train)
    assert len(made) == len(plain)
    widths = [batch["item_id_list"].shape[1] for batch in made]
    assert widths == [int(batch["item_length"].max()) for batch in made]
    assert min(widths) < max(widths) < WIDTH
    assert seen(made) == seen(list(plain))


def seen(batches: list[Interaction]) -> list[tuple[int, ...]]:
    """Return all rows, sorted: session, target, items."""
    return sorted(
        (int(user), int(item), *row[row > 0].tolist())
        for batch in batches
        for user, item, row in zip(
            batch["session_id"], batch["item_id"], batch["item_id_list"], strict=True
        )
    )


def test_negatives_and_masks_are_made_of_cut_rows(folder: Path) -> None:
    bpr = case(folder, "SASRec", length_buckets=4, loss_type="BPR").prepare().train
    assert {"neg_item_id"} <= set(next(iter(bpr)).columns)
    masked = next(iter(case(folder, "BERT4Rec", length_buckets=4).prepare().train))
    assert masked["Mask_item_id_list"].shape == masked["item_id_list"].shape


def test_a_model_of_fixed_width_keeps_its_batches(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        train = case(folder, "Caser", length_buckets=4).prepare().train
    assert type(train) is TrainDataLoader
    assert "Caser is not known to ignore columns of padding" in caplog.text


def test_buckets_without_shuffling_are_refused() -> None:
    with pytest.raises(ConfigError, match="length_buckets = 4 .* shuffle is false"):
        MMConfig("SASRec", SMALL.name, (), {"length_buckets": 4, "shuffle": False})


# ---- What may be cut ----

OURS = [
    *("SRIM", "SRIM paper", "SRIM official", "NFRec", "AlterRec", "AlterRec aug"),
    *("AlterRec official", "MDSRec", "MDSRec paper", "MMSBR", "MMSBR official", "UniSRec"),
    *(
        "CoHHN",
        "MISSRec",
        "UniSRec pretrain",
        "LLM2SASRec",
        "LLM2BERT4Rec",
        "SASRecF",
        "GRU4RecF",
        "FDSA",
    ),
    *("DIMO", "DIMO official"),
]
NETWORKS = [
    name for name in stock.class_names("sequential") if name not in (*stock.UNSUPPORTED, *OURS)
]
CUT = [name for name in NETWORKS if name in stock._IGNORES_PADDING]
# The toy catalogue has fewer items than these two ask for in any case.
WHOLE = [name for name in NETWORKS if name not in CUT and not name.endswith("CPR")]
NEEDED = {
    "MDSRec": {"modalities": ["text", "image"]},
    "MMSBR": {"category_field": "class"},
    "FEARec": {"n_layers": 2},
}


def test_the_list_names_models_that_are_there() -> None:
    assert set(CUT) == stock._IGNORES_PADDING


def built(folder: Path, name: str) -> tuple[AbstractRecommender, list[Interaction]]:
    """Return a model and batches whose longest histories are of one, two and six items."""
    model, _, preset = name.partition(" ")
    keys = NEEDED.get(model, {}) if preset != "official" else {}
    prepared = case(folder, model, preset=preset or "sound", **keys).prepare()
    rows = prepared.train.dataset.inter_feat
    picked = [rows[rows["item_length"] <= longest][:48] for longest in (1, 2, 6)]
    batches = [
        next(iter(TrainDataLoader(prepared.config, prepared.train.dataset.copy(part),
                                  prepared.train._sampler, False)))
        for part in picked
    ]  # fmt: skip
    return prepared.model, batches


def narrow(batch: Interaction) -> Interaction:
    lists = [name for name in batch.columns if name.endswith("item_id_list")]
    assert all(batch[name].shape[1] == WIDTH for name in lists)
    longest = int(batch["item_length"].max())
    return changed(batch, **{name: batch[name][:, :longest] for name in lists})


def graded(model: AbstractRecommender, batch: Interaction) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss, and its gradient by parameter."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    calculate = compat.loss_function(model) or model.calculate_loss
    loss = total(calculate(batch))
    backward(loss)
    grads = {
        name: weight.grad.to_dense().clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return loss.detach(), grads


def without_dropout(model: AbstractRecommender) -> AbstractRecommender:
    for module in model.modules():
        for field in ("p", "dropout"):
            if isinstance(getattr(module, field, None), float):
                setattr(module, field, 0.0)
    return model.train()


def differences(model: AbstractRecommender, batch: Interaction) -> Iterator[float]:
    """Yield the difference of losses, gradients and scores, each over its largest value."""
    loss, grads = graded(model, batch)
    other, others = graded(model, narrow(batch))
    yield float((loss - other).abs() / loss.abs().clamp_min(1e-6))
    assert grads.keys() == others.keys()
    largest = max(1e-6, *(float(grad.abs().max()) for grad in grads.values()))
    for name, grad in grads.items():
        yield float((grad - others[name]).abs().max()) / largest
    model.eval()
    with torch.no_grad():
        scores = [
            model.full_sort_predict(part).view(len(batch), -1) for part in (batch, narrow(batch))
        ]
    model.train()
    yield float((scores[0] - scores[1])[:, 1:].abs().max() / scores[0][:, 1:].abs().max())


@pytest.mark.parametrize("name", [*OURS, *CUT])
def test_loss_gradient_and_scores_are_those_of_uncut_rows(folder: Path, name: str) -> None:
    model, batches = built(folder, name)
    assert stock.ignores_padding(type(model))
    without_dropout(model)
    for epoch, batch in enumerate(batches):
        if isinstance(model, HasStartEpoch):
            model.start_epoch(epoch * 7)
        assert max(differences(model, batch)) < 2e-6


@pytest.mark.parametrize("name", WHOLE)
def test_the_others_would_change(folder: Path, name: str) -> None:
    """A model that could be cut after all belongs into the list."""
    model, batches = built(folder, name)
    assert not stock.ignores_padding(type(model))
    without_dropout(model)
    try:
        changes = max(max(differences(model, batch)) for batch in batches)
    except (RuntimeError, IndexError):
        return
    assert changes > 1e-5


def test_parts_beside_a_model_change_nothing_and_a_subclass_must_say_so(folder: Path) -> None:
    model, _ = built(folder, "SASRec")
    assert stock.ignores_padding(
        type(case(folder, "SASRec", score_parts=["own_items"]).prepare().model)
    )
    assert not stock.ignores_padding(type("Mine", (type(model),), {}))
    assert stock.ignores_padding(type("Mine", (type(model),), {"ignores_padding": True}))
