"""The made-up shop: same bytes everywhere, and four signals that add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from recbole_mm.compat import lengths_of_cells
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.data.itememb import read_itememb
from recbole_mm.errors import DataError
from recbole_mm.prepare.synthetic import shop as synthetic

COMMITTED = Path(__file__).parents[3] / "atomic_data" / "Cellphones"
FILES = ("Cellphones.inter", "Cellphones.item", "Cellphones.image.itememb", "dataset.json")


@pytest.fixture(scope="module")
def shop() -> synthetic.Shop:
    return synthetic.make_shop()


@pytest.fixture(scope="module")
def visits(shop) -> synthetic.Visits:
    return synthetic.make_visits(shop)


def test_generating_again_gives_the_committed_bytes(tmp_path):
    folder = synthetic.prepare_synthetic(tmp_path)
    for name in FILES:
        assert (folder / name).read_bytes() == (COMMITTED / name).read_bytes(), name


def test_another_seed_gives_other_data(tmp_path):
    folder = synthetic.prepare_synthetic(tmp_path, seed=7)
    for name in FILES:
        assert (folder / name).read_bytes() != (COMMITTED / name).read_bytes(), name
    # Items without a visit are left out, so that both files have the same vocabulary.
    items = set(read_atomic(folder / "Cellphones.item")["item_id"])
    assert items == set(read_atomic(folder / "Cellphones.inter")["item_id"])


def test_existing_files_are_not_overwritten(tmp_path):
    folder = synthetic.prepare_synthetic(tmp_path)
    (folder / "Cellphones.inter").write_text("mine")
    with pytest.raises(DataError, match=r"Cellphones\.inter.*--force"):
        synthetic.prepare_synthetic(tmp_path)
    assert (folder / "Cellphones.inter").read_text() == "mine"
    synthetic.prepare_synthetic(tmp_path, force=True)
    assert (folder / "Cellphones.inter").read_bytes() == (COMMITTED / FILES[0]).read_bytes()


def test_the_card_says_synthetic():
    card = load_dataset_card(COMMITTED)
    assert card.synthetic and card.timestamps == "real"
    assert card.report == {"sessions": 3000, "items": 600, "interactions": 9028}
    assert card.text_fields == ("title", "brand", "category")


def test_sizes_resemble_cellphones(visits):
    lengths = np.bincount(visits.session)
    assert lengths.min() == 2
    assert 2.9 < lengths.mean() < 3.15
    assert 0.4 < (lengths == 2).mean() < 0.6  # a geometric tail with ratio one half
    assert 8 < lengths.max() < 20
    counts = np.bincount(visits.item, minlength=600)
    assert np.median(counts) <= 15
    assert counts.max() < 60


def test_times_grow_inside_sessions_even_as_float32(visits):
    same = visits.session[1:] == visits.session[:-1]
    assert (np.diff(visits.seconds)[same] >= 150).all()
    assert (np.diff(visits.seconds.astype(np.float32))[same] > 0).all()
    starts = visits.seconds[np.r_[True, ~same]]
    assert (np.diff(starts) >= 0).all()
    assert 170 < (starts[-1] - starts[0]) / 86_400 < 182


def test_no_item_is_visited_before_launch_or_twice_in_a_session(shop, visits):
    day = (visits.seconds - synthetic.FIRST_SECOND) // 86_400
    assert (day >= shop.launch_day[visits.item]).all()
    assert len(np.unique(np.c_[visits.session, visits.item], axis=0)) == len(visits.item)
    assert (shop.launch_day > 0).sum() > 30


def test_partners_are_mutual_and_the_traits_independent(shop):
    rows = np.arange(600)
    for column in shop.partners.T:
        assert np.array_equal(column[column], rows)
        assert (column != rows).all()
    traits = (shop.topic, shop.style, shop.level)
    for i, one in enumerate(traits):
        assert np.bincount(one).tolist() == [50] * 12
        for other in traits[i + 1 :]:
            together = np.bincount(one * 12 + other, minlength=144)
            expected = 600 / 144
            # Chi-square with 121 degrees of freedom; 99.9 % lie below 173.
            assert ((together - expected) ** 2 / expected).sum() < 173
        partners_alike = (one[shop.partners] == one[:, None]).mean()
        assert partners_alike < 0.13  # by chance 49/599 = 0.082


def test_cells_suit_the_stock_reader():
    for name in FILES[:3]:
        text = (COMMITTED / name).read_text(encoding="utf-8")
        assert '"' not in text and "\r" not in text
        widths = {line.count("\t") for line in text.splitlines()}
        assert len(widths) == 1
    items = read_atomic(COMMITTED / "Cellphones.item")
    assert (items != "").all(axis=None)
    assert read_itememb(COMMITTED / FILES[2], "image").ids == items["item_id"].tolist()


def test_stock_recbole_reads_the_files():
    config_module = pytest.importorskip("recbole.config")
    from recbole.data.dataset import SequentialDataset

    settings = {
        "data_path": str(COMMITTED.parent),
        "USER_ID_FIELD": "session_id",
        "load_col": {
            "inter": ["session_id", "item_id", "timestamp"],
            "item": ["item_id", "title", "brand", "category", "price"],
            "image.itememb": ["image_id", "image_emb"],
        },
        "additional_feat_suffix": ["image.itememb"],
        "alias_of_item_id": ["image_id"],
        "preload_weight": {"image_id": "image_emb"},
        "train_neg_sample_args": None,
    }
    config = config_module.Config(model="SASRec", dataset="Cellphones", config_dict=settings)
    with lengths_of_cells():  # stock RecBole cannot read them with pandas 3
        dataset = SequentialDataset(config)
    assert dataset.item_num == 601
    assert dataset.user_num == 3001
    assert len(dataset.inter_feat) == 9028
    ours = read_itememb(COMMITTED / FILES[2], "image")
    table = dataset.get_preload_weight("image_id")
    rows = [dataset.token2id("item_id", token) for token in ours.ids]
    assert np.array_equal(table[rows].astype(np.float32), ours.vectors)


class _Scorers:
    """Untrained scores for the last item of the test sessions, split 7:2:1 by end time."""

    def __init__(self) -> None:
        inter = read_atomic(COMMITTED / "Cellphones.inter")
        items = read_atomic(COMMITTED / "Cellphones.item").set_index("item_id")
        code = {token: row for row, token in enumerate(items.index)}
        grouped = inter.assign(code=inter["item_id"].map(code)).groupby("session_id")
        ends = grouped["timestamp"].max().sort_values(kind="stable")
        sessions = [grouped["code"].get_group(token).to_numpy() for token in ends.index]
        train, test = sessions[:2100], sessions[2700:]
        self.targets = np.array([session[-1] for session in test])
        self.seen = [session[:-1] for session in test]
        kernels = self._kernels(items, train)
        self.scores = {
            name: np.array([kernel[seen].mean(axis=0) for seen in self.seen])
            for name, kernel in kernels.items()
        }

    @staticmethod
    def _kernels(items, train):
        n = len(items)
        together = np.zeros((n, n))
        for session in train:
            together[np.ix_(session, session)] += 1
        popularity = np.tile(np.diag(together), (n, 1)).copy()
        np.fill_diagonal(together, 0)
        words = TfidfVectorizer().fit_transform(items["title"] + " " + items["category"])
        images = read_itememb(COMMITTED / "Cellphones.image.itememb", "image").vectors
        images = images / np.linalg.norm(images, axis=1, keepdims=True)
        price = np.log(items["price"].to_numpy())
        return {
            "popularity": popularity,
            "graph": together,
            "text": (words @ words.T).toarray(),
            "image": images @ images.T,
            "price": -np.abs(price[:, None] - price),
        }

    def standardised(self, name):
        scores = self.scores[name].copy()
        for row, seen in enumerate(self.seen):
            scores[row, seen] = np.nan
        spread = np.nanstd(scores, axis=1, keepdims=True)
        centred = scores - np.nanmean(scores, axis=1, keepdims=True)
        return centred / np.where(spread > 0, spread, 1)

    def hit(self, scores, k=20):
        scores = scores.copy()
        for row, seen in enumerate(self.seen):
            scores[row, seen] = -np.inf
        target = scores[np.arange(len(scores)), self.targets][:, None]
        # Ties count half, so that a constant score earns what chance earns.
        rank = (scores > target).sum(axis=1) + ((scores == target).sum(axis=1) + 1) / 2
        return float((rank <= k).mean())


def test_each_of_the_four_signals_tells_something_and_together_they_tell_more():
    scorers = _Scorers()
    assert len(scorers.targets) == 300
    alone = {name: scorers.hit(scores) for name, scores in scorers.scores.items()}
    signals = ("graph", "text", "image", "price")
    for name in signals:
        assert alone[name] > alone["popularity"] + 0.08, alone
    parts = {name: scorers.standardised(name) for name in signals}
    everything = scorers.hit(sum(parts.values()))
    assert everything > max(alone.values()) + 0.08, (everything, alone)
    for name in signals:
        rest = scorers.hit(sum(part for other, part in parts.items() if other != name))
        assert everything > rest + 0.015, (name, everything, rest)


class _Insider:
    """Ranks the last item of the test sessions by the story's own probabilities.

    ``unknown`` names what the insider does not know: a trait, which then counts by its share of the
    items, or the partners.
    """

    def __init__(self, shop, visits):
        starts = np.flatnonzero(np.diff(visits.session, prepend=-1))
        sessions = np.split(visits.item, starts[1:])
        ends = [times[-1] for times in np.split(visits.seconds, starts[1:])]
        last_tenth = np.argsort(ends, kind="stable")[2700:]
        self.shop = shop
        self.rows = [(sessions[k], visits.seconds[starts[k]]) for k in last_tenth]

    def ndcg(self, unknown=None):
        return float(np.mean([self._gain(items, start, unknown) for items, start in self.rows]))

    def _gain(self, items, start, unknown):
        chances = self._chances(items[:-1], start, unknown)
        rank = int((chances > chances[items[-1]]).sum())
        return 1 / np.log2(rank + 2) if rank < 20 else 0.0

    def _chances(self, seen, start, unknown):
        shop = self.shop
        weights = synthetic._present(shop, np.array([start]))[0] * self._taste(seen[0], unknown)
        weights[seen] = 0
        share = synthetic.PARTNER_PERCENT / 100
        chances = (1 - share) * weights / weights.sum()
        if unknown != "partners":
            partners = shop.partners[seen[-1]]
            # Two matchings may give an item the same partner.
            np.add.at(chances, partners, share / len(partners) * (weights[partners] > 0))
        return chances

    def _taste(self, first, unknown):
        shop = self.shop
        traits = {"topic": shop.topic, "style": shop.style, "level": shop.level}
        hidden = traits.pop(unknown, None)
        shared = sum((trait == trait[first]).astype(int) for trait in traits.values())
        if hidden is None:
            return synthetic.PULL[shared].astype(float)
        same = float((hidden == hidden[first]).mean())
        return same * synthetic.PULL[shared + 1] + (1 - same) * synthetic.PULL[shared]


def test_who_knows_the_story_needs_every_part_of_it(shop, visits):
    insider = _Insider(shop, visits)
    everything = insider.ndcg()
    assert 0.38 < everything < 0.43
    for part in ("topic", "style", "level", "partners"):
        assert insider.ndcg(part) < everything - 0.05, part
