"""Rows in chunks: which, how wide, how many; and ranks equal to RecBole's whole way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from scipy.stats import rankdata

from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.evaluation.chunks import chunks, rows_at_once
from recbole_mm.evaluation.masking import strike_out
from recbole_mm.evaluation.ranking import metrics_from_ranks
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

            def __getitem__(self, numbers):
                return rows[numbers]

        self.dataset = Part()

    def transform(self, dataset, rows):
        return rows


class Narrow:
    ignores_padding = True


def seen(loader, model, rows=None):
    return [
        (one.where.tolist(), one.interaction["item_id_list"].shape[1], one.items.tolist())
        for one in chunks(model, loader, rows)
    ]


def test_like_lengths_together_and_cut():
    loader = Loader()
    targets = loader.dataset.inter_feat["item_id"].tolist()
    found = seen(loader, Narrow())
    assert [where for where, _, _ in found] == [[1, 5, 2], [3, 7, 0], [4, 6]]
    assert [width for _, width, _ in found] == [4, 2, 1]
    assert [items for *_, items in found] == [[targets[k] for k in w] for w, _, _ in found]


def test_some_rows_only_are_named_by_their_place():
    found = seen(Loader(), Narrow(), np.array([6, 1, 3]))
    assert [(where, width) for where, width, _ in found] == [([1, 2, 0], 4)]
    assert seen(Loader(), Narrow(), np.array([], dtype=np.int64)) == []


def test_models_that_do_not_say_that_they_ignore_padding_keep_it():
    assert {width for _, width, _ in seen(Loader(), object())} == {WIDTH}


def test_only_lists_are_cut_and_rows_are_transformed_afterwards():
    loader = Loader((1, 2))
    loader.dataset.inter_feat.update(Interaction({"price_list": torch.ones(2, WIDTH),
                                                  "vector": torch.ones(2, WIDTH)}))  # fmt: skip
    loader.transform = lambda dataset, rows: (
        rows.update(Interaction({"doubled_list": rows["item_id_list"].repeat(1, 2)})) or rows
    )
    (only,) = chunks(Narrow(), loader)
    shapes = {name: tuple(value.shape[1:]) for name, value in only.interaction.interaction.items()}
    assert shapes == {"item_id": (), "item_length": (), "item_id_list": (2,), "price_list": (2,),
                      "vector": (WIDTH,), "doubled_list": (4,)}  # fmt: skip


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
    assert widths == (shortened(lengths) if cut else [full] * len(lengths))


def shortened(lengths):
    """Return the width of each row: the longest of its chunk of four."""
    order = sorted(lengths.tolist(), reverse=True)
    return [order[place - place % 4] for place in range(len(order))]


@pytest.mark.parametrize("metric", ["ItemCoverage", "GiniIndex", "AveragePopularity"])
def test_metrics_that_recboles_collector_cannot_deliver_are_refused_in_one_line(metric, data):
    keys = {"data_path": str(data), "metrics": ["NDCG", metric]}
    with pytest.raises(ConfigError, match=f"{metric}.* is not accepted") as error:
        MMConfig("SASRec", SMALL.name, (), keys)
    assert "\n" not in str(error.value)


class Spread(SASRec):
    """Gives every fourth item one score, so that targets share theirs."""

    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction)
        return scores[:, torch.arange(self.n_items) // 4 * 4]


def test_tied_items_share_their_mean_position_in_every_number(data, tmp_path):
    keys = {"data_path": str(data), "run_folder": str(tmp_path), "use_gpu": False,
            "train_batch_size": 64}  # fmt: skip
    made = prepare(MMConfig("SASRec", SMALL.name, (), keys))
    model = Spread(made.config, made.train.dataset).eval()
    trainer = trainer_class(made.spec, Spread)(made.config, model)
    found = trainer.evaluate(made.test, load_best_model=False)
    rows = made.test.dataset.inter_feat
    with torch.no_grad():
        scores = model.full_sort_predict(rows)[:, 1:].double().numpy()
    target = rows["item_id"].numpy() - 1
    # scipy's mean position of ties; padding is left out.
    ranks = np.ceil([rankdata(-row)[t] for row, t in zip(scores, target, strict=True)])
    assert trainer.ranks.tolist() == ranks.tolist() and trainer.tied == len(ranks)
    expected = metrics_from_ranks(ranks, [10, 20], ["Hit", "MRR", "NDCG"])
    assert found == pytest.approx(expected, abs=1e-15)
