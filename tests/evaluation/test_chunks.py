"""Rows in chunks: which, how wide, how many; and ranks equal to RecBole's whole way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from recbole_mm.config import MMConfig
from recbole_mm.evaluation.chunks import chunk_count, chunks, rows_at_once, without_padding
from recbole_mm.evaluation.masking import strike_out
from recbole_mm.run.prepared import prepare
from recbole_mm.testing.case import SMALL, write_toy
from recbole_mm.trainer.base import trainer_class

CPU, GPU = torch.device("cpu"), torch.device("cuda")
N, WIDTH = 6, 5
KEYS = {
    "device": "cpu", "eval_batch_size": 3, "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
}  # fmt: skip


class Loader:
    """Eight rows of one to four items."""

    def __init__(self, lengths=(1, 4, 2, 2, 1, 3, 1, 2)):
        self.config = KEYS
        lengths = torch.tensor(lengths)
        items = 1 + torch.arange(len(lengths) * WIDTH).view(-1, WIDTH) % (N - 1)
        history = items * (torch.arange(WIDTH) < lengths.unsqueeze(1))
        columns = {"item_id": items[:, -1], "item_id_list": history, "item_length": lengths}
        rows = Interaction(columns)

        class Part:
            inter_feat, item_num = rows, N

            def __len__(self):
                return len(rows)

        self.dataset = Part()

    def collate_fn(self, rows):
        return self.dataset.inter_feat[torch.from_numpy(rows)], None, None, None


def bag(batch):
    """Score the items of the history: padding changes nothing."""
    scores = torch.zeros(len(batch["item_id"]), N)
    return scores.scatter_add(1, batch["item_id_list"], torch.ones(batch["item_id_list"].shape))


def seen(loader, score, rows=None):
    return [
        (one.where.tolist(), one.interaction["item_id_list"].shape[1], one.items.tolist())
        for one in chunks(loader, score, rows)
    ]


def test_like_lengths_together_and_cut():
    loader = Loader()
    targets = loader.dataset.inter_feat["item_id"].tolist()
    found = seen(loader, bag)
    assert [where for where, _, _ in found] == [[1, 5, 2], [3, 7, 0], [4, 6]]
    assert [width for _, width, _ in found] == [4, 2, 1]
    assert [items for *_, items in found] == [[targets[k] for k in w] for w, _, _ in found]
    assert chunk_count(loader, 8) == len(found) == 3


def test_some_rows_only_are_named_by_their_place():
    found = seen(Loader(), bag, np.array([6, 1, 3]))
    assert [(where, width) for where, width, _ in found] == [([1, 2, 0], 4)]
    assert seen(Loader(), bag, np.array([], dtype=np.int64)) == []


def left(batch):
    """Counts the columns, as a convolution of fixed width or a mean over all of them would."""
    return bag(batch) / batch["item_id_list"].shape[1]


def fixed(batch):
    return bag(batch) + batch["item_id_list"].view(-1, WIDTH).sum()


def drawn(batch):
    return torch.rand(len(batch["item_id"]), N)


def short(batch):
    return bag(batch)[: batch["item_id_list"].shape[1]]


@pytest.mark.parametrize("score", [left, fixed, drawn, short])
def test_scores_that_depend_on_the_width_keep_it(score):
    assert {width for _, width, _ in seen(Loader(), score)} == {WIDTH}


def test_a_buffer_that_a_model_fills_again_hides_nothing():
    buffer = torch.zeros(16, N)

    def score(batch):
        buffer[: len(batch["item_id"])] = left(batch)
        return buffer[: len(batch["item_id"])]

    assert {width for _, width, _ in seen(Loader(), score)} == {WIDTH}


def test_an_error_at_full_width_is_not_hidden():
    def score(batch):
        raise RuntimeError("no such table")

    with pytest.raises(RuntimeError, match="no such table"):
        seen(Loader(), score)


def test_only_lists_are_cut():
    columns = {
        "item_id_list": torch.tensor([[1, 0, 0]]),
        "item_length": torch.tensor([1]),
        "price_list": torch.tensor([[0.5, 0.0, 0.0]]),
        "vector": torch.ones(1, 3),
    }
    found = without_padding(Interaction(columns), KEYS)
    shapes = {name: tuple(value.shape) for name, value in found.interaction.items()}
    assert shapes == {"item_id_list": (1, 1), "item_length": (1,), "price_list": (1, 1),
                      "vector": (1, 3)}  # fmt: skip


@pytest.mark.parametrize(
    ("items", "device", "most", "expected"),
    [
        (20_000, CPU, 4096, 250),
        (100, CPU, 4096, 512),
        (100, CPU, 8, 8),
        (1_000_000, CPU, 4096, 32),
        (20_000, GPU, 4096, 4096),
        (1_000_000, GPU, 4096, 128),
        (100_000_000, GPU, 4096, 32),
        (100_000_000, CPU, 1, 1),
    ],
)
def test_rows_at_once(items, device, most, expected):
    assert rows_at_once(items, device, most) == expected


# Models of every kind: attention, recurrence, convolution of fixed width, graphs, a mask behind the
# session, filters over the whole width, counting, popularity, and ours.
STOCK = ("SASRec", "GRU4Rec", "NARM", "STAMP", "Caser", "SRGNN", "BERT4Rec", "NextItNet",
         "FEARec", "CORE", "LightSANs", "FPMC")  # fmt: skip
OURS = ("SRIM", "MDSRec", "AlterRec", "MMSBR")
METRICS = ["Hit", "MRR", "ShannonEntropy", "NDCG", "Recall", "Precision", "MAP"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_toy(folder, SMALL, ("text", "image"))
    return folder


@pytest.mark.parametrize(
    ("model", "history"),
    [*((one, "keep") for one in (*STOCK, *OURS)), ("SASRec", "mask"), ("SRIM", "mask")],
)
def test_metrics_are_recboles_to_the_last_printed_digit(model, history, data, tmp_path):
    keys = {"data_path": str(data), "run_folder": str(tmp_path), "use_gpu": False,
            "train_batch_size": 64, "metrics": METRICS, "topk": [1, 5, 20], "history": history,
            "valid_metric": "MRR@20", "eval_batch_size": 16}  # fmt: skip
    made = prepare(MMConfig(model, SMALL.name, (), keys))
    ours = trainer_class(made.spec, made.config.model_class)(made.config, made.model)
    for part in (made.valid, made.test):
        found = ours.evaluate(part, load_best_model=False)
        assert ours.tied == 0, "the comparison needs scores without ties"
        theirs = recboles(made, part)
        assert list(found) == list(theirs)
        for name, value in theirs.items():
            assert f"{found[name]:.4f}" == f"{value:.4f}", name
            assert found[name] == pytest.approx(value, abs=1e-9), name


class Masked(Trainer):
    """RecBole's own evaluation; it knows no `history: mask`, so that is done to its scores."""

    def _full_sort_batch_eval(self, batched_data):
        interaction, scores, rows, items = super()._full_sort_batch_eval(batched_data)
        if self.config["history"] == "mask":
            scores = strike_out(scores, interaction["item_id_list"], items)
        return interaction, scores, rows, items


def recboles(made, part):
    return Masked(made.config, made.model).evaluate(part, load_best_model=False)


@pytest.mark.parametrize(("model", "cut"), [("SASRec", True), ("BERT4Rec", True), ("SRGNN", True),
                                            ("Caser", False), ("LightSANs", False)])  # fmt: skip
def test_stock_models_are_cut_where_they_can_be(model, cut, data, tmp_path, monkeypatch):
    keys = {"data_path": str(data), "run_folder": str(tmp_path), "use_gpu": False,
            "train_batch_size": 64, "eval_batch_size": 4}  # fmt: skip
    made = prepare(MMConfig(model, SMALL.name, (), keys))
    trainer = trainer_class(made.spec, made.config.model_class)(made.config, made.model)
    score, widths = made.model.full_sort_predict, []

    def watched(interaction):
        widths.extend([interaction["item_id_list"].shape[1]] * len(interaction))
        return score(interaction)

    monkeypatch.setattr(made.model, "full_sort_predict", watched)
    trainer.evaluate(made.test, load_best_model=False)
    full, lengths = made.config["MAX_ITEM_LIST_LENGTH"], made.test.dataset.inter_feat["item_length"]
    assert int(lengths.max()) < full
    rows = len(lengths)
    # The last ones are the evaluation itself; before it a few rows are scored to and fro.
    assert rows < len(widths) <= rows + 64
    assert widths[-rows:] == (shortened(lengths) if cut else [full] * rows)


def shortened(lengths):
    """Return the width of each row: the longest of its chunk of four."""
    order = sorted(lengths.tolist(), reverse=True)
    return [order[place - place % 4] for place in range(len(order))]
