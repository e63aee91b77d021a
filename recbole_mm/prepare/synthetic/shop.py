"""A made-up shop of phone accessories that stands in for Amazon Cellphones.

Four separate things decide what a shopper looks at next, and each is visible in one place only:

* a random partner graph among the items, visible in the sessions alone;
* a topic, visible in the words of title and category;
* a style, visible as a noisy direction of the image vector;
* a price level, visible in the price.

Topic, style and level are drawn independently of each other and of the graph. Popularity is mild
and most items are rare, so none of the four can be replaced by another or by counting.

The only random source is ``Generator(PCG64(seed)).random``, and what follows from it is integer
arithmetic, comparisons and element-wise sums in a fixed order. The files are therefore the same
bytes on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.card import DatasetCard
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.prepare.output import INTER_TYPES, counts, refuse_overwriting, write_dataset
from recbole_mm.prepare.sessions import IntArray
from recbole_mm.prepare.synthetic import vocabulary
from recbole_mm.prepare.synthetic.dice import Dice

NAME = "Cellphones"
SEED = 2020
N_ITEMS = 600
N_SESSIONS = 3000
N_DAYS = 182
IMAGE_WIDTH = 32
N_STYLES = 12
IMAGE_NOISE = 1.0

# 2024-01-01 00:00 UTC in seconds.
FIRST_SECOND = 1_704_067_200
# A level reaches from one bound to the next, in cents.
PRICE_BOUNDS = np.array([199, 299, 449, 649, 949, 1399, 1999, 2799, 3999, 5499, 7999, 11499, 15999])
N_LEVELS = len(PRICE_BOUNDS) - 1
# Hours of the day in which a session may start, the busy ones more than once.
HOURS = np.array([7, 8, 9, 10, 11, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 20, 20, 21, 21, 22])

# How often the next item is a partner of the last one; otherwise taste decides.
PARTNER_PERCENT = 25
PARTNERS_PER_ITEM = 3
# The share of sessions that go on after each item from the second on: mean length 3.
GO_ON = 0.5
# How much taste makes of an item that shares 0, 1, 2 or 3 of topic, style and level with the first
# item of the session. Two are enough: the few items that share all three would be soon known by
# their ids alone.
PULL = np.array([1, 20, 1000, 1000])
# Zipf's law, shifted by this many ranks so that it is mild.
POPULARITY_SHIFT = 120
LATE_SHARE = 0.1
LAST_LAUNCH_DAY = 140


@dataclass(frozen=True)
class Shop:
    """The items: what is visible and what lies behind it.

    ``topic``, ``style``, ``level`` and ``popularity`` have shape ``(n,)``; ``partners`` is
    ``(n, PARTNERS_PER_ITEM)``; ``launch_day`` is the day an item enters the shop; ``cents`` is
    the price; ``images`` is ``(n, IMAGE_WIDTH)``.
    """

    ids: list[str]
    titles: list[str]
    brands: list[str]
    categories: list[str]
    topic: IntArray
    style: IntArray
    level: IntArray
    popularity: IntArray
    launch_day: IntArray
    partners: IntArray
    cents: IntArray
    images: NDArray[np.float64]


@dataclass(frozen=True)
class Visits:
    """The interactions, by session and time: codes from 0 and seconds, each of shape ``(r,)``."""

    session: IntArray
    item: IntArray
    seconds: IntArray


def make_shop(seed: int = SEED, n_items: int = N_ITEMS) -> Shop:
    """Draw the items of the shop.

    Parameters
    ----------
    seed
        Seed of the items; the sessions use another stream.
    n_items
        Number of items; must be even (the partner graph is made of perfect matchings).
    """
    dice = Dice(seed)
    topic = dice.balanced(n_items, len(vocabulary.WORDINGS))
    style = dice.balanced(n_items, N_STYLES)
    level = dice.balanced(n_items, N_LEVELS)
    rank = dice.shuffled(np.arange(n_items, dtype=np.int64))
    late = dice.uniform(n_items) < LATE_SHARE
    low, high = PRICE_BOUNDS[level], PRICE_BOUNDS[level + 1]
    brands = [vocabulary.BRANDS[i] for i in dice.below(len(vocabulary.BRANDS), n_items)]
    return Shop(
        ids=[f"CP{i:04d}" for i in range(1, n_items + 1)],
        titles=_titles(dice, topic, brands),
        brands=brands,
        categories=[vocabulary.DEPARTMENTS[t] for t in topic],
        topic=topic,
        style=style,
        level=level,
        popularity=1_000_000 // (rank + POPULARITY_SHIFT),
        launch_day=np.where(late, dice.below(LAST_LAUNCH_DAY, n_items), 0),
        partners=_partner_graph(dice, n_items),
        cents=low + dice.below(high - low, n_items),
        images=_images(dice, style),
    )


def _titles(dice: Dice, topic: IntArray, brands: list[str]) -> list[str]:
    """Write one title per item: two wordings of its topic among words that mean nothing."""
    n = len(topic)
    wordings = len(vocabulary.WORDINGS[0])
    first = dice.below(wordings, n)
    second = (first + 1 + dice.below(wordings - 1, n)) % wordings
    manner, device, colour = (
        dice.below(len(words), n)
        for words in (vocabulary.MANNERS, vocabulary.DEVICES, vocabulary.COLOURS)
    )
    titles = []
    for i in range(n):
        words = vocabulary.WORDINGS[topic[i]]
        titles.append(
            f"{vocabulary.MANNERS[manner[i]]} {words[first[i]]}, {words[second[i]]} "
            f"for {vocabulary.DEVICES[device[i]]}, {vocabulary.COLOURS[colour[i]]}"
        )
    return titles


def _partner_graph(dice: Dice, n_items: int) -> IntArray:
    """Draw perfect matchings: each item gets one partner from each of them."""
    partners = np.empty((n_items, PARTNERS_PER_ITEM), dtype=np.int64)
    for column in range(PARTNERS_PER_ITEM):
        left, right = dice.shuffled(np.arange(n_items, dtype=np.int64)).reshape(2, -1)
        partners[left, column], partners[right, column] = right, left
    return partners


def _images(dice: Dice, style: IntArray) -> NDArray[np.float64]:
    """Draw image vectors: the +1/-1 direction of the style plus noise of every pixel of it."""
    directions = np.where(dice.uniform(N_STYLES, IMAGE_WIDTH) < 0.5, -1.0, 1.0)
    return directions[style] + IMAGE_NOISE * dice.bell(len(style), IMAGE_WIDTH)


def make_visits(shop: Shop, seed: int = SEED, n_sessions: int = N_SESSIONS) -> Visits:
    """Draw the sessions of the shop's visitors.

    The first item is drawn in proportion to popularity and sets the taste of the session. A further
    item is, in ``PARTNER_PERCENT`` of the cases, a partner of the last one; otherwise it is drawn
    in proportion to popularity times ``PULL`` of the traits it shares with the first. An item is
    looked at once per session, and never before its launch.

    Parameters
    ----------
    shop
        The items.
    seed
        Seed of the sessions.
    n_sessions
        Number of sessions.
    """
    dice = Dice(seed + 1)
    start = _start_seconds(dice, n_sessions)
    weights = _present(shop, start)
    alive = np.arange(n_sessions, dtype=np.int64)
    last, now = dice.pick(weights), start
    weights *= _taste(shop, last)
    steps = [(alive, last, now)]
    while len(alive):
        weights[alive, last] = 0
        last = dice.pick(_partner_or(dice, shop, last, weights[alive]))
        now = now + _pause(dice, len(alive))
        steps.append((alive, last, now))
        goes_on = dice.uniform(len(alive)) < GO_ON
        alive, last, now = alive[goes_on], last[goes_on], now[goes_on]
    session, item, seconds = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(session, kind="stable")
    return Visits(session[order], item[order], seconds[order])


def _start_seconds(dice: Dice, n_sessions: int) -> IntArray:
    """Draw when the sessions start, in order."""
    day = dice.below(N_DAYS, n_sessions)
    hour = HOURS[dice.below(len(HOURS), n_sessions)]
    return np.sort(FIRST_SECOND + day * 86_400 + hour * 3_600 + dice.below(3_600, n_sessions))


def _pause(dice: Dice, n: int) -> IntArray:
    """Draw seconds between two items of a session, at least 150.

    RecBole keeps times as float32, whose steps are 128 s at present-day dates.
    """
    return 150 + np.floor(dice.uniform(n) * dice.uniform(n) * 1_500).astype(np.int64)


def _present(shop: Shop, start: IntArray) -> IntArray:
    """Return each item's popularity, zero before its launch, shape ``(S, n)``."""
    day = (start - FIRST_SECOND) // 86_400
    return shop.popularity * (shop.launch_day <= day[:, None])


def _taste(shop: Shop, anchor: IntArray) -> IntArray:
    """Return how strongly a visitor who began with ``anchor`` is drawn to each item, ``(S, n)``."""
    shared = np.zeros((len(anchor), len(shop.topic)), dtype=np.int64)
    for trait in (shop.topic, shop.style, shop.level):
        shared += trait == trait[anchor, None]
    return PULL[shared]


def _partner_or(dice: Dice, shop: Shop, last: IntArray, weights: IntArray) -> IntArray:
    """Turn some sessions to one partner of their last item, if it still can be drawn.

    Parameters
    ----------
    dice
        Source of chance.
    shop
        The items.
    last
        Last item of each session, ``(S,)``.
    weights
        Weights by taste ``(S, n)``; zero for items that cannot be drawn.
    """
    rows = np.arange(len(last))
    partner = shop.partners[last, dice.below(PARTNERS_PER_ITEM, len(last))]
    by_graph = (dice.below(100, len(last)) < PARTNER_PERCENT) & (weights[rows, partner] > 0)
    only_partner = np.arange(weights.shape[1]) == partner[:, None]
    return np.where(by_graph[:, None], only_partner, weights)


def prepare_synthetic(out: str | Path, seed: int = SEED, force: bool = False) -> Path:
    """Write the made-up shop to ``<out>/Cellphones`` and return that folder.

    Parameters
    ----------
    out
        Folder of all data sets.
    seed
        Seed of items and sessions. The committed files come from the default.
    force
        Overwrite existing files.

    Raises
    ------
    DataError
        If files exist and ``force`` is false.
    """
    folder = Path(out) / NAME
    refuse_overwriting(folder, NAME, force)
    shop = make_shop(seed)
    visits = make_visits(shop, seed)
    image_path = itememb_path(folder, NAME, "image")
    # An item without a visit would give RecBole, which reads both files, a larger vocabulary.
    seen = np.unique(visits.item)
    images = np.round(shop.images[seen] * 128) / 128  # written exactly with nine digits
    write_itememb(image_path, "image", [shop.ids[i] for i in seen], images)
    items, item_types = _item_table(shop)
    inter = _inter_frame(shop, visits)
    card = _card(seed, counts(inter))
    return write_dataset(folder, card, (inter, INTER_TYPES), (items.iloc[seen], item_types))


def _inter_frame(shop: Shop, visits: Visits) -> pd.DataFrame:
    """Return the rows of the ``.inter`` file."""
    return pd.DataFrame(
        {
            "session_id": [f"S{number:04d}" for number in visits.session + 1],
            "item_id": np.array(shop.ids, dtype=object)[visits.item],
            "timestamp": visits.seconds,
        }
    )


def _item_table(shop: Shop) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the rows and the types of the ``.item`` file."""
    columns = {
        "item_id:token": shop.ids,
        "title:token_seq": shop.titles,
        "brand:token": shop.brands,
        "category:token": shop.categories,
        "price:float": shop.cents / 100,
    }
    types = dict(name.split(":") for name in columns)
    return pd.DataFrame(dict(zip(types, columns.values(), strict=True))), types


def _card(seed: int, report: dict[str, int]) -> DatasetCard:
    """Describe the data set."""
    return DatasetCard(
        name=NAME,
        source=f"generated by recbole-mm prepare synthetic (seed {seed}); not real shoppers",
        licence="MIT, like recbole_mm itself",
        # The times belong to the story: sessions begin one after another, items are launched.
        timestamps="real",
        synthetic=True,
        session="one visit of a made-up shopper",
        text_fields=("title", "brand", "category"),
        report=report,
    )
